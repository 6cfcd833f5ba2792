"""Writes HTTP answers as gunicorn does; the heads of those that repeat are remembered.

An answer's head depends on its status and fields, the method, whether the
connection closes, and the second. gunicorn's own ``Response`` makes it the first
time, so that there is one rule for it.
"""

import time
from typing import Any, NamedTuple

from gunicorn.http.wsgi import Response
from gunicorn.util import to_bytestring

_REMEMBERED = 256


class Responses:
    """Makes the bytes of answers."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._second = 0
        self._heads: dict[Any, _Head] = {}

    def pack(self, environ: dict[str, Any], exchange: Any, chunks: list[bytes]) -> bytes:
        """Return an answer whole, and note in the exchange whether it closes the connection."""
        now = int(time.time())
        if now != self._second or len(self._heads) >= _REMEMBERED:
            self._second = now
            self._heads.clear()
        key = (environ["REQUEST_METHOD"], exchange.must_close, exchange.status, *exchange.headers)
        known = self._heads.get(key)
        if known is None:
            known = self._heads[key] = self._head(environ, exchange)
        if known.closes:
            exchange.must_close = True
        if not known.has_body:
            return known.data
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if known.chunked:
            body = b"%b0\r\n\r\n" % (b"%X\r\n%b\r\n" % (len(body), body) if body else b"")
        return known.data + body

    def _head(self, environ: dict[str, Any], exchange: Any) -> "_Head":
        request = _Request(environ["REQUEST_METHOD"], exchange)
        response = Response(request, None, self._cfg)
        response.start_response(exchange.status, exchange.headers)
        lines = response.default_headers()
        lines += [f"{name}: {value}\r\n" for name, value in response.headers]
        return _Head(
            data=to_bytestring("".join(lines) + "\r\n", "latin-1"),
            has_body=not response._omits_body,  # noqa: SLF001 - what gunicorn's write() goes by
            chunked=response.chunked,
            closes=response.should_close(),
        )


class _Head(NamedTuple):
    data: bytes
    has_body: bool
    chunked: bool
    closes: bool


class _Request:
    """What gunicorn's Response asks of a request."""

    version = (1, 1)

    def __init__(self, method: str, exchange: Any) -> None:
        self.method = method
        self._exchange = exchange

    def should_close(self) -> bool:
        return bool(self._exchange.must_close)
