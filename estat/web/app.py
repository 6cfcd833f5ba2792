"""The WSGI application: which listener and which resource answer a request, and how errors look.

``Front`` is what the server calls. Behind it are two Falcon applications: the public one,
and with METRICS_ADDR a private one for the metrics and the OpenAPI description.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import falcon

from estat.errors import Refused
from estat.events import json_text
from estat.pipeline.pipeline import Pipeline
from estat.web import cors, openapi, write_keys
from estat.web.collect import Collect
from estat.web.environ import ERROR, INTAKE, Fields
from estat.web.resources import (
    Below,
    Document,
    Exposition,
    Health,
    Pixel,
    Ready,
    Script,
    fail,
    refuse,
)

_INTAKE = ("POST", INTAKE)


class Front:
    """Passes a request on to the application of the listener that it came to.

    On the public listener it first takes write keys out of the query. It adds the intake's CORS
    fields last, so that every answer has them, whatever the application does.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        settings = pipeline.settings
        self._collect = Collect(pipeline)
        self._public = create_app(pipeline, self._collect)
        self._private = create_app(pipeline) if settings.metrics_addr else None
        self._private_port = settings.metrics_addr.rpartition(":")[2]
        self._takes_keys = bool(settings.write_keys)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        # gunicorn puts the port of the listener here, whatever the Host header says
        if self._private and environ["SERVER_PORT"] == self._private_port:
            return self._private(environ, start_response)
        if self._takes_keys:
            write_keys.take_from_query(environ)
        if not environ["PATH_INFO"].startswith(INTAKE):
            return self._public(environ, start_response)
        fields = cors.fields(environ.get("HTTP_ORIGIN"))

        def start(status: str, headers: Fields, exc_info: Any = None) -> Any:
            return start_response(status, headers + fields, exc_info)

        return self._public(environ, start)

    def accept(self, environ: WSGIEnvironment) -> bytes | None:
        """Take what the fast loop has read, if it is for the intake; return the answer's body.

        None: the applications answer it, also what was refused. Without them an event costs a tenth
        less.
        """
        if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) != _INTAKE:
            return None
        if environ["SERVER_PORT"] == self._private_port:
            return None
        if self._takes_keys:
            write_keys.take_from_query(environ)
        try:
            return self._collect.post(environ)
        except Exception as error:  # noqa: BLE001 - Falcon's error handlers answer it
            environ[ERROR] = error
            return None


def create_app(pipeline: Pipeline, collect: Collect | None = None) -> falcon.App[Any, Any]:
    """Return the Falcon application of the public listener, or without ``collect`` the private."""
    settings = pipeline.settings
    app = falcon.App()
    app.set_error_serializer(partial(_serialize, "; events go to POST /collect" if collect else ""))
    app.add_error_handler(Exception, fail)
    app.add_route("/health", Health(pipeline))
    app.add_route("/ready", Ready(pipeline))
    if not collect or not settings.metrics_addr:
        app.add_route("/metrics", Exposition(pipeline))
        app.add_route("/openapi.json", Document(openapi.document(settings)))
    if collect:
        app.add_error_handler(Refused, refuse)
        app.add_route("/", Document({"name": "Estat Ingest", "events": "POST /collect"}))
        app.add_route(INTAKE, collect)
        app.add_route(f"{INTAKE}/{{rest:path}}", Below(collect))
        app.add_route(f"{INTAKE}.gif", Pixel(collect))
        app.add_route("/estat.js", Script(settings))
    return app


def _serialize(
    hint: str, req: falcon.Request, resp: falcon.Response, exception: falcon.HTTPError
) -> None:
    """Write an error as JSON, whatever the client's Accept header prefers."""
    resp.content_type = falcon.MEDIA_JSON
    resp.set_header("Cache-Control", "no-store")
    description = exception.description or f"{req.method} {req.path}{hint}"
    title = exception.title.removeprefix(f"{exception.status_code} ")  # Falcon's own begin with it
    resp.data = json_text.dump({"title": title, "description": description})
