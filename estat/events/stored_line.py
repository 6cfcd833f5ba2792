"""What is stored of an event, as bytes.

One line of JSON: an id and a time that the collector stamps, then what the
request gave. JSON is read and written by orjson, which takes what RFC 8259 allows
and nothing else; where that is not the last word, by the standard library, slowly
(docs/decisions/0002). Text that can't be UTF-8 (a lone surrogate, a stray byte in
a header) becomes U+FFFD.
"""

import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

#: Characters of a header that are stored.
MAX_HEADER_CHARS = 1024
_MAX_HEADER_BYTES = 4 * MAX_HEADER_CHARS  # a character has four at most

#: Upper bound of what ``stamped`` puts in front of a line: braces and names, the
#: stream, a count of up to 13 digits, the time.
STAMP_BYTES = 80

#: How deep a value may be nested.
MAX_DEPTH = 1000

_WHITESPACE = " \t\r\n"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is out of range")
    return number


# the C scanner by itself: JSONDecoder.decode costs half as much again around it
_decoder: Any = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_encoder = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once


def parse_quickly(data: bytes) -> Any:
    """Parse strict JSON, as ``parse`` does in nearly all cases.

    Raises ValueError where that has the last word: what is no JSON, and lone surrogates. An
    integer of more than 64 bits comes as a double; ``may_be_rounded`` tells.
    """
    return orjson.loads(data)


def may_be_rounded(encoded: bytes) -> bool:
    """Tell whether what ``parse_quickly`` read may hold a double that was sent as an integer."""
    return b"e+" in encoded  # how orjson writes doubles from 1e16, and nothing else but text


def parse(text: str) -> Any:
    """Parse strict JSON, integers of any length exactly. Raises ValueError with the reason."""
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
    """Write a parsed value as compact JSON in UTF-8. Raises ValueError if it is nested too deep."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # an integer of more than 64 bits, a lone surrogate, or nesting beyond orjson's
        try:
            text = _encoder.encode(value)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc
        # few events have as many brackets in all, and to count levels takes longer than all else
        if text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
            raise ValueError("nested too deeply") from None
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _is_too_deep(value: Any) -> bool:
    """Tell whether a value is nested beyond MAX_DEPTH; how deep Python gets varies by version."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = [one for one in level if isinstance(one, dict | list)]
        if not inner:
            return False
        level = [
            member for one in inner for member in (one.values() if isinstance(one, dict) else one)
        ]
    return True


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
