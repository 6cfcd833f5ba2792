"""What gunicorn serves for ``estat demo``: the production application, and /demo beside it."""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from estat import wsgi
from estat.demo.resources import create_demo

app = wsgi.app
_served = app.application
_demo = create_demo(app.pipeline)


def _front(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Pass a request on to the demo, or to the production application."""
    path = environ["PATH_INFO"]
    is_demo = path == "/demo" or path.startswith("/demo/")
    return (_demo if is_demo else _served)(environ, start_response)


app.application = _front
