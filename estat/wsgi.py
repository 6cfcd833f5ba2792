"""What gunicorn serves: ``estat.wsgi:app``. Each worker imports it after its fork.

The post_worker_init hook starts the pipeline (see ``server.hooks``). Until then every
event is refused with 503. A process that gunicorn started without its configuration file,
or that is no worker, ends when it imports this (see ``server.launch``).
"""

from wsgiref.types import WSGIApplication

from estat.pipeline.pipeline import Pipeline
from estat.server import inherited
from estat.server.unread_body import UnreadBodies
from estat.web.app import Front


class Application(UnreadBodies):
    """What serves requests, with the pipeline behind it, which the hooks start and drain."""

    def __init__(self, pipeline: Pipeline, front: WSGIApplication) -> None:
        super().__init__(front, pipeline.settings.read_timeout)
        self.pipeline = pipeline


_pipeline = Pipeline(
    inherited.settings(), inherited.page(), inherited.slot(), inherited.directory()
)
app = Application(_pipeline, Front(_pipeline))
