"""The HTTP resources besides the intake, and how a refusal is answered."""

from typing import Any

import falcon

from estat import event, metrics, openapi
from estat.errors import REFUSALS, Refused
from estat.pipeline import Pipeline


class Health:
    """``GET /health``: whether the process works."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or 500 when a stage died and only a restart can help."""
        del req
        broken = self._pipeline.broken
        resp.status = falcon.HTTP_500 if broken else falcon.HTTP_200
        resp.media = {"status": "broken" if broken else "ok"}
        _never_cached(resp)

    on_head = on_get


class Ready:
    """``GET /ready``: whether to send requests here. Red only while starting and draining."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 or 503; the body names what is wrong."""
        del req
        ready = self._pipeline.ready
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {"ready": ready, "problems": self._pipeline.problems()}
        _never_cached(resp)

    on_head = on_get


class Exposition:
    """``GET /metrics``: the metrics of all workers."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._page = pipeline.page

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the Prometheus text format."""
        del req
        resp.content_type = metrics.CONTENT_TYPE
        resp.data = metrics.render(self._page)
        _never_cached(resp)


class Description:
    """``GET /openapi.json``: the HTTP interface, for tools."""

    def __init__(self, pipeline: Pipeline) -> None:
        document = openapi.document(pipeline.settings)
        self._data = event.encode(document)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the OpenAPI description."""
        del req
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._data

    on_head = on_get


class Root:
    """``GET /``: what this is, for whoever comes by."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the name and where events go."""
        del req
        resp.media = {"name": "Estat Ingest", "events": "POST /collect"}

    on_head = on_get


def refuse(req: falcon.Request, resp: falcon.Response, ex: Refused, params: Any) -> None:
    """Turn Refused into its HTTP error (a Falcon error handler)."""
    del req, resp, params
    refusal = REFUSALS[ex.reason]
    headers = {}
    if refusal.retry_after_seconds:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.challenge:
        headers["WWW-Authenticate"] = refusal.challenge
    if ex.reason == "unsupported_encoding":
        headers["Accept-Encoding"] = "gzip"  # RFC 9110, 12.5.3
    raise falcon.HTTPError(
        refusal.status, title=refusal.title, description=ex.description, headers=headers
    ) from ex


def _never_cached(resp: falcon.Response) -> None:
    resp.set_header("Cache-Control", "no-store")
