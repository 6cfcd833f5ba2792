"""Makes HTTP answers as gunicorn does, and remembers the heads of those that repeat.

An answer's head depends on its status and fields, the method, whether the
connection closes, and the second. gunicorn's own ``Response`` makes it the first
time, so that there is one rule for it.
"""

import time
from types import SimpleNamespace
from typing import NamedTuple

from gunicorn.config import Config
from gunicorn.http.wsgi import Response
from gunicorn.util import to_bytestring

from estat.web import cors
from estat.web.environ import JSON, Fields

_REMEMBERED = 256


class Responses:
    """Makes the bytes of answers."""

    def __init__(self, cfg: Config, accepted: str) -> None:
        self._cfg = cfg
        self._accepted = accepted  # the status of an answer to accepted events
        self._second = 0
        self._heads: dict[tuple[object, ...], _Head] = {}

    def pack(
        self, method: str, status: str, fields: Fields, body: bytes, *, must_close: bool
    ) -> tuple[bytes, bool]:
        """Return a whole answer, and whether it closes the connection."""
        key = (method, must_close, status, *fields)
        head = self._known(key) or self._make(key, method, status, fields, must_close)
        if not head.has_body:
            body = b""
        elif head.chunked:
            body = b"%b0\r\n\r\n" % (b"%X\r\n%b\r\n" % (len(body), body) if body else b"")
        return head.data + body, head.closes

    def accepted(self, body: bytes, origin: str | None, *, must_close: bool) -> tuple[bytes, bool]:
        """Return the same for accepted events that a page of ``origin`` has sent, if one has."""
        key = (origin, len(body), must_close)
        head = self._known(key)
        if head is None:
            fields = [JSON, ("content-length", str(len(body))), *cors.fields(origin)]
            head = self._make(key, "POST", self._accepted, fields, must_close)
        return head.data + body, must_close

    def _known(self, key: tuple[object, ...]) -> "_Head | None":
        now = int(time.time())
        if now != self._second or len(self._heads) >= _REMEMBERED:
            self._second = now
            self._heads.clear()
        return self._heads.get(key)

    def _make(
        self, key: tuple[object, ...], method: str, status: str, fields: Fields, must_close: bool
    ) -> "_Head":
        # what gunicorn's Response asks of a request
        request = SimpleNamespace(method=method, version=(1, 1), should_close=lambda: must_close)
        response = Response(request, None, self._cfg)
        response.start_response(status, fields)
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
