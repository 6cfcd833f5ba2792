"""What gunicorn serves for ``estat demo``: the production application, and /demo beside it."""

from collections.abc import Callable, Iterable
from typing import Any

from estat import wsgi
from estat.demo.resources import create_demo
from estat.web import unread_body


class Application:
    """Passes on every request but those for the demo."""

    def __init__(self, served: wsgi.Application) -> None:
        self.pipeline = served.pipeline
        self._served = served
        self._demo = create_demo(self.pipeline.settings, self.pipeline.page)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Serve one request."""
        path = environ["PATH_INFO"]
        if path == "/demo" or path.startswith("/demo/"):
            return unread_body.serve(
                self._demo, environ, start_response, self.pipeline.settings.read_timeout
            )
        return self._served(environ, start_response)


app = Application(wsgi.app)
