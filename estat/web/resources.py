"""The HTTP resources besides ``/collect`` itself, and the answer to a request that was refused."""

import gzip
import hashlib
import logging
import re
from importlib import resources
from typing import Any, NoReturn

import falcon
import rjsmin

from estat.accounting import exposition
from estat.config.settings import Settings
from estat.errors import REFUSALS, Refused
from estat.events import json_text
from estat.log import Seldom
from estat.pipeline.pipeline import Pipeline
from estat.web.collect import Collect

#: One transparent pixel.
_GIF = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)

_seldom = Seldom(logging.getLogger(__name__))

_ACCEPTS_GZIP = re.compile(r"(?i)(?:^|,)\s*gzip\s*(?:,|$|;\s*q=(?:1|0?\.0*[1-9]))")


class Below:
    """``/collect/<anything>``: what senders append to the path is stored with their events.

    What they GET there, settings say, is not here.
    """

    def __init__(self, collect: Collect) -> None:
        self.on_post, self.on_options = collect.on_post, collect.on_options

    def on_get(self, _req: falcon.Request, _resp: falcon.Response, **_rest: str) -> NoReturn:
        """Answer 404."""
        raise falcon.HTTPNotFound

    on_head = on_get


class Pixel:
    """``/collect.gif``: the query is an event of an image element, which needs no preflight."""

    def __init__(self, collect: Collect) -> None:
        self.on_post, self.on_options = collect.on_post, collect.on_options
        self._take = collect.on_get

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with a transparent pixel, or with an error as JSON."""
        self._take(req, resp)
        resp.status = falcon.HTTP_200
        # a page that isolates itself (COEP) shows an image only with this header
        resp.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        resp.content_type = "image/gif"
        resp.data = _GIF


class Health:
    """``GET /health``: whether the process works."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or 500 when a stage died and only a restart can help."""
        broken = self._pipeline.broken
        resp.status = falcon.HTTP_500 if broken else falcon.HTTP_200
        resp.media = {"status": "broken" if broken else "ok"}
        _never_cached(resp)

    on_head = on_get


class Ready:
    """``GET /ready``: whether to send requests here. Red only while starting and draining."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 or 503; the body names what is wrong."""
        ready = self._pipeline.ready
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {"ready": ready, "problems": self._pipeline.problems()}
        _never_cached(resp)

    on_head = on_get


class Exposition:
    """``GET /metrics``: the metrics of all workers."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._page = pipeline.page

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the Prometheus text format."""
        resp.content_type = exposition.CONTENT_TYPE
        resp.data = exposition.render(self._page)
        _never_cached(resp)


class Document:
    """A JSON document that stays the same as long as the server runs."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._data = json_text.dump(content)

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the document."""
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._data

    on_head = on_get


class Script:
    """``GET /estat.js``: the browser client. Any page may load it, and keep it for an hour."""

    def __init__(self, settings: Settings) -> None:
        data = browser_client(settings)
        self._plain = _tagged(data)
        self._gzipped = _tagged(gzip.compress(data, mtime=0))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the client, or with 304 if the browser has it already."""
        gzipped = _ACCEPTS_GZIP.search(req.get_header("Accept-Encoding") or "")
        data, tag = self._gzipped if gzipped else self._plain
        resp.set_header("Cache-Control", "public, max-age=3600")
        resp.append_header("Vary", "Accept-Encoding")
        resp.etag = tag
        # a page that isolates itself (COEP) loads a script only with one of these
        resp.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        resp.set_header("Access-Control-Allow-Origin", "*")
        if {tag, "*"}.intersection(req.if_none_match or []):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = "text/javascript; charset=utf-8"
        if gzipped:
            resp.set_header("Content-Encoding", "gzip")
        resp.data = data

    on_head = on_get


def _tagged(data: bytes) -> tuple[bytes, str]:
    """Return a body as it is sent, with its entity tag."""
    return data, hashlib.sha256(data).hexdigest()[:16]


def browser_client(settings: Settings) -> bytes:
    """Return static/estat.js as it is served: minified, with the limits that the settings give."""
    source = resources.files("estat.web").joinpath("static/estat.js").read_text(encoding="utf-8")
    limits = {
        "BATCH_EVENTS": settings.max_batch_events,
        "BATCH_BYTES": settings.max_batch_body_size,
        "EVENT_BYTES": settings.max_body_size,
    }
    for name, value in limits.items():
        source = re.sub(rf"\b{name} = \d+", f"{name} = {value}", source, count=1)
    small: str = rjsmin.jsmin(source)
    return small.encode()


def refuse(_req: falcon.Request, _resp: falcon.Response, refused: Refused, _params: Any) -> None:
    """Turn Refused into its HTTP error (a Falcon error handler)."""
    refusal = REFUSALS[refused.reason]
    headers = {}
    if refusal.retry_after_seconds:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refused.reason == "unsupported_encoding":
        headers["Accept-Encoding"] = "gzip"  # RFC 9110, 12.5.3
    raise falcon.HTTPError(
        refusal.status, title=refusal.title, description=refused.description, headers=headers
    ) from refused


def fail(_req: falcon.Request, _resp: falcon.Response, _error: Exception, _params: Any) -> NoReturn:
    """Log what nobody expected as one line, and answer 500 (a Falcon error handler)."""
    _seldom.exception("request_failed")
    raise falcon.HTTPInternalServerError


def _never_cached(resp: falcon.Response) -> None:
    resp.set_header("Cache-Control", "no-store")
