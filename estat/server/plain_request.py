"""Recognises plain requests: those that the fast loop may serve. A rule without I/O.

A request that is not plain is no error: gunicorn's own parser decides about it. So
this rule may be stricter than gunicorn, and must never be laxer: a head is plain only if
gunicorn's parser would accept it and would make the same WSGI environment of it.

    POST /collect HTTP/1.1      one space, no fragment, no escapes, HTTP/1.1
    Name: value                 letters, digits and hyphens; no controls; each name once
    Content-Length: 123         64 KiB at most, or none; no other framing, no Expect, no Upgrade
"""

import re
from typing import TypeVar
from wsgiref.types import WSGIEnvironment

from estat.web.environ import environ_key

_START = re.compile(
    rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS) "
    rb"(/(?:[A-Za-z0-9._~-]+/)*[A-Za-z0-9._~-]*)(?:\?([A-Za-z0-9._~=&%+:,;@/-]*))? HTTP/1\.1"
)
_FIELD = re.compile(rb"([A-Za-z0-9-]+):[\t ]*([\t\x20-\x7e\x80-\xff]*)")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,4}")
#: A larger body is gunicorn's to read, piece by piece.
_MAX_BODY_BYTES = 64 * 1024

#: Names that change how a message is read or answered.
_NOT_PLAIN = {"TRANSFER-ENCODING", "TE", "TRAILER", "EXPECT", "UPGRADE", "HTTP2-SETTINGS"}

#: Each request has a value of its own of these: it would push out a line that comes again.
_UNIQUE = {"X-AMZN-TRACE-ID", "X-REQUEST-ID", "TRACEPARENT"}

#: How many lines are remembered, as clients repeat most of theirs, and how long they may be.
_REMEMBERED, _REMEMBERED_BYTES = 4096, 200

Field = tuple[str, str]
T = TypeVar("T")


class PlainRequests:
    """Reads heads within gunicorn's limits (fields, bytes of a line)."""

    def __init__(self, max_fields: int, max_line_bytes: int) -> None:
        self._max_lines = 1 + max_fields
        self._max_line_bytes = max_line_bytes
        self._starts: dict[bytes, dict[str, str]] = {}
        self._fields: dict[bytes, Field] = {}

    def read(self, head: bytes, base: WSGIEnvironment) -> WSGIEnvironment | None:
        """Return ``base`` with what the head of a request says; None if it is not plain.

        ``head`` is what comes before the empty line, without the line end in front of it.
        """
        lines = head.split(b"\r\n")
        if len(lines) > self._max_lines:
            return None
        start = self._starts.get(lines[0]) or self._read_start(lines[0])
        if start is None:
            return None
        environ = base | start
        fields = self._fields
        del lines[0]
        for line in lines:
            field = fields.get(line) or self._read_field(line)
            if field is None:
                return None
            key, value = field
            if key in environ:
                return None  # gunicorn says what a repeated field means
            environ[key] = value
        return environ

    def _read_start(self, line: bytes) -> dict[str, str] | None:
        match = _START.fullmatch(line)
        if not match or len(line) > self._max_line_bytes:
            return None
        method, path, query = match.groups()
        target = line.split(b" ")[1].decode()
        found = {
            "REQUEST_METHOD": method.decode(),
            "RAW_URI": target,
            "PATH_INFO": path.decode(),
            "QUERY_STRING": (query or b"").decode(),
        }
        self._remember(self._starts, line, found)
        return found

    def _read_field(self, line: bytes) -> Field | None:
        match = _FIELD.fullmatch(line)
        if not match or len(line) > self._max_line_bytes:
            return None
        name = match[1].decode().upper()
        value = match[2].decode("latin-1").strip("\t ")
        if name in _NOT_PLAIN:
            return None
        if name == "CONNECTION" and value.lower() != "keep-alive":
            return None
        if name == "CONTENT-LENGTH" and not (
            _LENGTH.fullmatch(value) and int(value) <= _MAX_BODY_BYTES
        ):
            return None
        field = (environ_key(name), value)
        if name not in _UNIQUE:
            self._remember(self._fields, line, field)
        return field

    @staticmethod
    def _remember(known: dict[bytes, T], line: bytes, meaning: T) -> None:
        if len(line) <= _REMEMBERED_BYTES:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[line] = meaning
