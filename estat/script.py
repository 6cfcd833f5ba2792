"""``GET /estat.js``: the browser client, ready to be sent.

The source is static/estat.js. It is made small and gets the limits of this server
once, at start. Any page may load it, and keep it for an hour.
"""

import gzip
import hashlib
import re
from importlib import resources
from typing import NamedTuple

import falcon
import rjsmin

from estat.settings import Settings

_CONTENT_TYPE = "text/javascript; charset=utf-8"
_CACHE_CONTROL = "public, max-age=3600"

_GZIP = re.compile(r"(?i)(?:^|,)\s*gzip\s*(?:,|$|;\s*q=(?:1|0?\.0*[1-9]))")


def client(settings: Settings) -> bytes:
    """Return the client as it is served, with the settings' limits in it."""
    source = resources.files("estat").joinpath("static/estat.js").read_text(encoding="utf-8")
    limits = {
        "BATCH_EVENTS": settings.max_batch_events,
        "BATCH_BYTES": settings.max_batch_body_size,
        "EVENT_BYTES": settings.max_body_size,
    }
    for name, value in limits.items():
        source = re.sub(rf"\b{name} = \d+", f"{name} = {value}", source, count=1)
    small: str = rjsmin.jsmin(source)
    return small.encode()


class Script:
    """``GET /estat.js``: the browser client."""

    def __init__(self, settings: Settings) -> None:
        data = client(settings)
        self._plain = _Form.of(data)
        self._gzipped = _Form.of(gzip.compress(data, mtime=0))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the client, or 304 to who has it."""
        gzipped = _GZIP.search(req.get_header("Accept-Encoding") or "")
        form = self._gzipped if gzipped else self._plain
        resp.set_header("Cache-Control", _CACHE_CONTROL)
        resp.append_header("Vary", "Accept-Encoding")
        resp.etag = form.tag
        # pages that isolate themselves (COEP) load only what says that it may be loaded
        resp.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        if {form.tag, "*"}.intersection(req.if_none_match or []):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = _CONTENT_TYPE
        if gzipped:
            resp.set_header("Content-Encoding", "gzip")
        resp.data = form.data

    on_head = on_get


class _Form(NamedTuple):
    data: bytes
    tag: str

    @classmethod
    def of(cls, data: bytes) -> "_Form":
        return cls(data, hashlib.sha256(data).hexdigest()[:16])
