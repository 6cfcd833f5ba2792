"""The Falcon application: which resource answers which path, and how errors look."""

from typing import Any

import falcon

from estat import event
from estat.collect import Collect, Pixel
from estat.errors import Refused
from estat.pipeline import Pipeline
from estat.resources import Description, Exposition, Health, Ready, Root, Script, refuse


def create_app(pipeline: Pipeline) -> falcon.App[Any, Any]:
    """Return the WSGI application of the public listener on top of a pipeline."""
    app = _app_with_probes(pipeline)
    app.add_error_handler(Refused, refuse)
    app.add_route("/", Root())
    collect = Collect(pipeline)
    app.add_route("/collect", collect)
    app.add_route("/collect.gif", Pixel(collect))
    app.add_route("/estat.js", Script(pipeline.settings))
    if not pipeline.settings.metrics_addr:
        _add_private(app, pipeline)
    return app


def create_private_app(pipeline: Pipeline) -> falcon.App[Any, Any]:
    """Return the WSGI application of the listener of METRICS_ADDR."""
    app = _app_with_probes(pipeline)
    _add_private(app, pipeline)
    return app


def _app_with_probes(pipeline: Pipeline) -> falcon.App[Any, Any]:
    app = falcon.App()
    app.set_error_serializer(_serialize)
    app.add_route("/health", Health(pipeline))
    app.add_route("/ready", Ready(pipeline))
    return app


def _add_private(app: falcon.App[Any, Any], pipeline: Pipeline) -> None:
    """Add what goes to the listener of METRICS_ADDR where there is one."""
    app.add_route("/metrics", Exposition(pipeline))
    app.add_route("/openapi.json", Description(pipeline))


def _serialize(req: falcon.Request, resp: falcon.Response, exception: falcon.HTTPError) -> None:
    """Write an error as JSON, whatever the client says it likes."""
    resp.content_type = falcon.MEDIA_JSON
    resp.set_header("Cache-Control", "no-store")
    description = exception.description or f"{req.method} {req.path}"
    content = {"title": exception.title, "description": description}
    resp.data = event.encode(content)
