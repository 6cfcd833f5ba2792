"""What gunicorn serves: ``estat.wsgi:app``. Imported by each worker after its fork.

The pipeline starts in gunicorn's post_worker_init hook (see ``server.hooks``), which
conf/gunicorn.conf.py sets; until then every event is refused with 503. Loaded in any
other way, it ends the process (see ``server.launch``).
"""

from collections.abc import Callable, Iterable
from typing import Any

from estat.pipeline.pipeline import Pipeline
from estat.server import inherited
from estat.web import unread_body
from estat.web.app import Front


class Application:
    """The Falcon apps with the pipeline behind them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._app = Front(pipeline)
        self._read_seconds = pipeline.settings.read_timeout

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Serve one request."""
        return unread_body.serve(self._app, environ, start_response, self._read_seconds)


app = Application(Pipeline(inherited.settings(), inherited.page(), inherited.slot()))
