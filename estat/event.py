"""What is stored of an event, as bytes.

One line of JSON: an id and a time that the collector stamps, then what the
request gave. JSON is read by the standard library's scanner, which takes what
RFC 8259 allows and nothing else (ujson reads ``{"a":-}`` as 0), and written by
ujson, which is faster; see docs/decisions/0002. Text that can't be UTF-8 (a
lone surrogate, a stray byte in a header) becomes U+FFFD.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ujson

#: Characters of a header that are stored.
MAX_HEADER_CHARS = 1024
_MAX_HEADER_BYTES = 4 * MAX_HEADER_CHARS  # a character has four at most

#: Upper bound of what ``stamped`` puts in front of a line: braces and names, the
#: stream, a count of up to 13 digits, the time.
STAMP_BYTES = 80

_WHITESPACE = " \t\r\n"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# the C scanner by itself: JSONDecoder.decode costs half as much again around it
_decoder: Any = json.JSONDecoder(parse_constant=_refuse_constant)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once


def parse(text: str) -> Any:
    """Parse strict JSON. Raises ValueError with the reason."""
    text = text.strip(_WHITESPACE)
    try:
        value, end = _scan(text, 0)
    except StopIteration as exc:
        raise ValueError(f"Expecting value (char {exc.value})") from exc
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if end != len(text):
        raise ValueError(f"Extra data (char {end})")
    return value


def encode(value: Any) -> bytes:
    """Write a parsed value as compact JSON in UTF-8. Raises ValueError for Infinity (1e999)."""
    try:
        # by position, for ujson takes a third of its time to sort out names: ensure_ascii,
        # encode_html_chars, escape_forward_slashes, sort_keys, indent, allow_nan
        return ujson.dumps(value, False, False, False, False, False, False).encode()
    except OverflowError as exc:
        raise ValueError("a number is out of range") from exc
    except UnicodeEncodeError:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def header_text(value: str) -> bytes:
    """Return a header's value, as WSGI gives it (latin-1), as a JSON string."""
    # cut before the cache, which clients fill
    return _header_text(value[:_MAX_HEADER_BYTES])


def uncached_header_text(value: str) -> bytes:
    """Return the same, of a value that is not likely to come again."""
    text = value[:_MAX_HEADER_BYTES]
    if not text.isascii():
        text = text.encode("latin-1", "replace").decode("utf-8", "replace")
    return encode(text[:MAX_HEADER_CHARS])


_header_text = lru_cache(maxsize=2048)(uncached_header_text)


def origin(ip: str, user_agent: str, more: bytes = b"") -> bytes:
    """Return the part of a line that all events of one request share, ``more`` members included."""
    agent = header_text(user_agent)
    return b',"ip":"%b","user_agent":%b%b,"body":' % (ip.encode(), agent, more)


def stamped(
    stream: str, first: int, unix_seconds: float, rests: list[bytes], *, whole_seconds: bool = False
) -> list[bytes]:
    """Return whole lines, numbered from ``first``: what the collector adds, and the rests."""
    start = b'{"id":"%b-' % stream.encode()
    middle = (b'","ts":%d' if whole_seconds else b'","ts":%.3f') % unix_seconds
    return [b"%b%d%b%b" % (start, n, middle, rest) for n, rest in enumerate(rests, first)]
