"""The Falcon application: which resource answers which path, and how errors look."""

from typing import Any

import falcon
import ujson

from estat.errors import Refused
from estat.pipeline import Pipeline
from estat.resources import Collect, Exposition, Health, Ready, refuse


def create_app(pipeline: Pipeline) -> falcon.App[Any, Any]:
    """Return the WSGI application on top of a pipeline."""
    app = falcon.App()
    app.set_error_serializer(_serialize)
    app.add_error_handler(Refused, refuse)
    app.add_route("/collect", Collect(pipeline))
    app.add_route("/health", Health(pipeline))
    app.add_route("/ready", Ready(pipeline))
    app.add_route("/metrics", Exposition(pipeline))
    return app


def _serialize(req: falcon.Request, resp: falcon.Response, exception: falcon.HTTPError) -> None:
    """Write an error as JSON, whatever the client says it likes."""
    resp.content_type = falcon.MEDIA_JSON
    description = exception.description or f"{req.method} {req.path}"
    content = {"title": exception.title, "description": description}
    resp.data = ujson.dumps(content, escape_forward_slashes=False).encode()
