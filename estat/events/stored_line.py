"""What is stored of an event, as bytes.

One line of JSON: an id and a time that the collector stamps, then what the
request gave. A stray byte in a header field becomes U+FFFD.
"""

from collections.abc import Iterable
from functools import lru_cache

from estat.events.json_text import dump

#: Characters of a header that are stored.
MAX_HEADER_CHARS = 1024
_MAX_HEADER_BYTES = 4 * MAX_HEADER_CHARS  # a character has four at most

#: Upper bound of what ``stamped`` adds to an origin and a body: braces and names, the
#: stream, a count of up to 13 digits, the time.
STAMP_BYTES = 82


def header_text(value: str) -> bytes:
    """Return a header's value, as WSGI gives it (latin-1), as a JSON string."""
    # cut before the cache, which clients fill
    return _header_text(value[:_MAX_HEADER_BYTES])


def uncached_header_text(value: str) -> bytes:
    """Return the same, of a value that is not likely to come again."""
    text = value[:_MAX_HEADER_BYTES]
    if not text.isascii():
        text = text.encode("latin-1", "replace").decode("utf-8", "replace")
    return dump(text[:MAX_HEADER_CHARS])


_header_text = lru_cache(maxsize=2048)(uncached_header_text)


def origin(ip: str, user_agent: str, more: bytes = b"") -> bytes:
    """Return the part of a line that all events of one request share, ``more`` members included."""
    agent = header_text(user_agent)
    return b',"ip":"%b","user_agent":%b%b,"body":' % (ip.encode(), agent, more)


def stamped(
    stream: str,
    first: int,
    unix_seconds: float,
    requests: Iterable[tuple[bytes, list[bytes]]],
    *,
    whole_seconds: bool = False,
) -> list[bytes]:
    """Return whole lines, numbered from ``first``, of requests' origins and bodies."""
    start = b'{"id":"%b-' % stream.encode()
    middle = (b'","ts":%d' if whole_seconds else b'","ts":%.3f') % unix_seconds
    lines: list[bytes] = []
    for origin, bodies in requests:
        rest = middle + origin
        for number, body in enumerate(bodies, first + len(lines)):
            lines.append(b"%b%d%b%b}\n" % (start, number, rest, body))
    return lines
