"""Makes HTTP answers as gunicorn does, and remembers the heads of those that repeat.

An answer's head depends on its status and fields, the method, whether the
connection closes, and the second. gunicorn's own ``Response`` makes it the first
time, so that there is one rule for it.
"""

import time
from types import SimpleNamespace
from typing import NamedTuple
from wsgiref.types import WSGIEnvironment

from gunicorn.config import Config
from gunicorn.http.wsgi import Response
from gunicorn.util import to_bytestring

from estat.web import cors
from estat.web.environ import JSON, Fields

_REMEMBERED = 256


class Exchange:
    """What becomes of one request: status and headers of its answer, and of its connection."""

    __slots__ = ("headers", "must_close", "status")

    def __init__(self) -> None:
        self.must_close = False  # the connection, after the answer
        self.status = ""
        self.headers: Fields = []

    def start_response(self, status: str, headers: Fields, _exc_info: object = None) -> None:
        """Take status and headers (PEP 3333; write() is not offered)."""
        self.status, self.headers = status, headers


class Responses:
    """Makes the bytes of answers."""

    def __init__(self, cfg: Config, accepted: str) -> None:
        self._cfg = cfg
        self._accepted = accepted  # the status of an answer to accepted events
        self._second = 0
        self._heads: dict[tuple[object, ...], _Head] = {}

    def pack(self, environ: WSGIEnvironment, exchange: Exchange, chunks: list[bytes]) -> bytes:
        """Return a whole answer, and note in the exchange if it closes the connection."""
        method = environ["REQUEST_METHOD"]
        key = (method, exchange.must_close, exchange.status, *exchange.headers)
        known = self._known(key) or self._make(key, method, exchange)
        if known.closes:
            exchange.must_close = True
        if not known.has_body:
            return known.data
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if known.chunked:
            body = b"%b0\r\n\r\n" % (b"%X\r\n%b\r\n" % (len(body), body) if body else b"")
        return known.data + body

    def accepted(self, data: bytes, origin: str | None, *, must_close: bool) -> bytes:
        """Return a whole answer to accepted events, for a request of this origin."""
        key = (origin, len(data), must_close)
        known = self._known(key)
        if known is None:
            exchange = Exchange()
            exchange.must_close = must_close
            length = ("content-length", str(len(data)))
            exchange.start_response(self._accepted, [JSON, length, *cors.fields(origin)])
            known = self._make(key, "POST", exchange)
        return known.data + data

    def _known(self, key: tuple[object, ...]) -> "_Head | None":
        now = int(time.time())
        if now != self._second or len(self._heads) >= _REMEMBERED:
            self._second = now
            self._heads.clear()
        return self._heads.get(key)

    def _make(self, key: tuple[object, ...], method: str, exchange: Exchange) -> "_Head":
        # what gunicorn's Response asks of a request
        request = SimpleNamespace(
            method=method, version=(1, 1), should_close=lambda: exchange.must_close
        )
        response = Response(request, None, self._cfg)
        response.start_response(exchange.status, exchange.headers)
        lines = response.default_headers()
        lines += [f"{name}: {value}\r\n" for name, value in response.headers]
        head = self._heads[key] = _Head(
            data=to_bytestring("".join(lines) + "\r\n", "latin-1"),
            has_body=not response._omits_body,  # noqa: SLF001 - what gunicorn's write() goes by
            chunked=response.chunked,
            closes=response.should_close(),
        )
        return head


class _Head(NamedTuple):
    data: bytes
    has_body: bool
    chunked: bool
    closes: bool
