"""Reads a line of an access log in Apache's and nginx's combined format.

    ADDRESS IDENT USER [TIME] "REQUEST" STATUS BYTES "REFERRER" "AGENT"

This module does no I/O: one line's bytes in, one hit out. It undoes the web server's escapes
on bytes, so that a header carries what the client sent; in JSON, what isn't UTF-8 becomes
U+FFFD. Real logs have lines that end inside the agent, where the writer was cut off. Such a
line has every field of the event, so it is a hit. Any other deviation is an error.
"""

import json
import re
from typing import NamedTuple

_QUOTED = rb'"([^"\\]*(?:\\.[^"\\]*)*)'
# the user is a name that the client chose: it may hold spaces
_LINE = re.compile(
    rb"(\S+) \S+ .+? \[([^\]]+)\] %b\" (\d{3}) (\d{1,19}|-) %b\" %b\"?"
    % (_QUOTED, _QUOTED, _QUOTED)
)
_REQUEST = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+) (\S+) (HTTP/\d(?:\.\d)?)")

# https://httpd.apache.org/docs/2.4/mod/mod_log_config.html#format-notes: \" and \\,
# white space in C's notation, the rest as \xHH; nginx writes \xHH only
_ESCAPE = re.compile(rb'\\(?:x([0-9A-Fa-f]{2})|(["\\bnrtvf]))')
_ESCAPED = bytes.maketrans(b"bnrtvf", b"\b\n\r\t\v\f")
_CONTROLS = bytes([*range(0x20), 0x7F])


class Hit(NamedTuple):
    """One request that a web server logged.

    ``event`` is JSON; ``address`` and ``agent`` are header values, empty where
    the log has ``-``.
    """

    event: bytes
    address: bytes
    agent: bytes


def hit_of(line: bytes) -> Hit:
    """Read one line, without its line end. Raises ValueError if it isn't in the format."""
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError("not in the combined log format")
    address, time, request, status, size, referrer, agent = match.groups()
    event: dict[str, str | int | None] = {"time": _text(time)}
    parts = _REQUEST.fullmatch(_unescape(request))
    if parts:
        event["method"], event["path"], event["protocol"] = map(_text, parts.groups())
    else:
        # what scanners send (TLS on a plain port, blanks in the path) has no parts to name
        event["request"] = _text(_unescape(request))
    event["status"] = int(status)
    event["bytes"] = None if size == b"-" else int(size)
    event["referrer"] = None if referrer == b"-" else _text(_unescape(referrer))
    encoded = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    return Hit(encoded, _header(address), _header(agent))


def _unescape(field: bytes) -> bytes:
    return _ESCAPE.sub(_meant, field) if b"\\" in field else field


def _meant(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[1].decode()) if escape[1] else escape[2].translate(_ESCAPED)


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace")


def _header(field: bytes) -> bytes:
    """Return a field as a header's value: a control character would end or forge a header."""
    return b"" if field == b"-" else _unescape(field).translate(None, _CONTROLS).strip()
