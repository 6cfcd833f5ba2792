"""What gunicorn serves: ``estat.wsgi:app``. Each worker imports it after its fork.

The post_worker_init hook starts the pipeline (see ``server.hooks``). Until then every
event is refused with 503. A process that gunicorn started without its configuration file,
or that is no worker, ends when it imports this (see ``server.launch``).
"""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from estat.pipeline.pipeline import Pipeline
from estat.server import inherited
from estat.web import unread_body
from estat.web.app import Front


class Application:
    """What serves requests, with the pipeline behind it, which the hooks start and drain."""

    def __init__(self, pipeline: Pipeline, front: WSGIApplication) -> None:
        self.pipeline = pipeline
        self.front = front
        self._read_seconds = pipeline.settings.read_timeout

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        return unread_body.serve(self.front, environ, start_response, self._read_seconds)


_pipeline = Pipeline(inherited.settings(), inherited.page(), inherited.slot())
app = Application(_pipeline, Front(_pipeline))
