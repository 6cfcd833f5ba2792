"""JSON (RFC 8259), read and written exactly. A rule without I/O.

orjson judges what is JSON, and reads and writes nearly all of it. Three things it can't do:

    an integer beyond 64 bits    ujson reads and writes it, once orjson has found the text valid
    half of a surrogate pair     becomes U+FFFD before orjson sees the text
    several values in one text   the standard library's scanner finds where each of them ends
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import ujson

#: How deep a value may be nested.
MAX_DEPTH = 1000

#: Digits of an integer: Python reads no more (sys.get_int_max_str_digits).
MAX_DIGITS = 4300

#: What may follow a number, or a name like ``null``, in a text of several values, or its end.
_AFTER_NUMBER = ("", " ", "\t", "\r", "\n", "{", "[", '"')

_SPACE = re.compile(r"[ \t\r\n]*")

#: A surrogate pair, half of one, or another escape. A backslash takes the next character with it,
#: so what stands behind an escaped backslash is no escape.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)

_STRAY_BYTE = re.compile(r"[\udc80-\udcff]")  # what ``decode`` makes of it

#: An integer that orjson takes for an infinite double.
_LONG = re.compile(r"(?<![0-9.eE+])[0-9]{309,}(?![0-9.eE])")

#: How orjson writes doubles from 1e16; in a text it may stand too.
_LARGE = re.compile(rb"[0-9]e\+[0-9]")

#: What orjson's messages mean of a text that the scanner takes.
_NO_NUMBER = "NaN and Infinity are not JSON"
_WHY = (
    ("unexpected character", _NO_NUMBER),
    ("no digit after sign", _NO_NUMBER),
    ("number is infinity", "a number is out of range"),
)

_decoder: Any = json.JSONDecoder(parse_float=len, parse_int=len)  # no number is asked for
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once


class TooDeep(ValueError):
    """A value is nested beyond MAX_DEPTH."""

    def __init__(self) -> None:
        super().__init__(f"nested too deeply; at most {MAX_DEPTH} levels")


def load(data: bytes) -> Any:
    """Read one value, but for what ``checked`` takes beyond that. Raises ValueError.

    An integer beyond 64 bits comes as a double: see ``may_be_rounded``.
    """
    return orjson.loads(data)


def parse(data: bytes) -> Any:
    """Read one value, as ``load`` does, and what ``checked`` takes beyond. Raises ValueError."""
    try:
        return orjson.loads(data)
    except ValueError:
        return ujson.loads(checked(decode(data)))


def may_be_rounded(encoded: bytes) -> bool:
    """Tell whether what ``load`` read may hold a double that was sent as an integer."""
    # "in" takes five times as long as rfind, and the pattern ten times
    return encoded.rfind(b"e+") >= 0 and bool(_LARGE.search(encoded))


def load_exactly(data: bytes) -> Any:
    """Read one value that is JSON for sure, integers of any length exactly."""
    return ujson.loads(data)


def dump(value: Any, levels: int = MAX_DEPTH) -> bytes:
    """Write a value that was read here, as compact JSON in UTF-8.

    Raises TooDeep beyond so many levels, if there are more than the 254 that orjson writes.
    """
    try:
        return b"%b" % orjson.dumps(value)  # a copy: orjson's own keeps a buffer of 4 KiB
    except TypeError:  # that, or an integer beyond 64 bits
        text = ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False)
        # few values have as many brackets in all, and to count levels takes longer than all else
        if text.count("[") + text.count("{") > levels and _is_deeper(value, levels):
            raise TooDeep from None
        return text.encode()


def load_all(texts: list[bytes]) -> list[Any]:
    """Read one value of each text, as ``load`` does; none if one can't be read."""
    try:
        return list(map(orjson.loads, texts))
    except ValueError:
        return []


def dump_all(values: list[Any]) -> list[bytes]:
    """Write values as ``dump`` does; none if one is not for orjson, or may be rounded."""
    try:
        texts = [b"%b" % orjson.dumps(value) for value in values]
    except TypeError:
        return []
    return [] if any(may_be_rounded(text) for text in texts) else texts


def decode(data: bytes) -> str:
    """Return a text for ``pieces``, in which a byte that is not UTF-8 spoils one value alone."""
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Return the bytes of a text, or a part of one, that came from ``decode``."""
    return text.encode("utf-8", "surrogateescape")


def pieces(text: str) -> Iterator[str]:
    """Yield the text of each value in a text, one after the other.

    Raises ValueError where the text is not JSON; what was yielded before that was.
    """
    at = _skip(text, 0)
    while at < len(text):
        end = _end(text, at)
        if text[end - 1] not in '}]"' and text[end : end + 1] not in _AFTER_NUMBER:
            raise json.JSONDecodeError("Extra data", text, end)
        yield text[at:end]
        at = _skip(text, end)


def elements(text: str) -> Iterator[str]:
    """Yield the text of each element of an array, which is one of the ``pieces``."""
    at = _skip(text, 1)
    while text[at] != "]":
        if text[at] == ",":
            at = _skip(text, at + 1)
        end = _end(text, at)
        yield text[at:end]
        at = _skip(text, end)


def checked(piece: str) -> bytes:
    """Return a piece as JSON that ``load_exactly`` reads. Raises ValueError with the reason.

    Half of a surrogate pair becomes U+FFFD. What is nested too deeply raises TooDeep.
    """
    if _STRAY_BYTE.search(piece):
        raise ValueError("not UTF-8")
    text = _ESCAPE.sub(lambda found: r"\ufffd" if found[1] else found[0], piece)
    try:
        orjson.loads(_LONG.sub(_short, text))
    except orjson.JSONDecodeError as exc:
        if exc.msg.startswith("depth limit"):
            raise TooDeep from exc
        raise ValueError(next((w for m, w in _WHY if exc.msg.startswith(m)), exc.msg)) from exc
    return text.encode()


def _short(digits: re.Match[str]) -> str:
    if len(digits[0]) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return "1"


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _end(text: str, at: int) -> int:
    """Return where the value ends that begins here. Raises ValueError if none does."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + MAX_DEPTH)  # Python 3.11 counts the scanner's levels, too
    try:
        _, end = _scan(text, at)
    except StopIteration as exc:
        raise json.JSONDecodeError("Expecting value", text, exc.value) from None
    except RecursionError:
        raise TooDeep from None
    finally:
        sys.setrecursionlimit(limit)
    return end


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        inner = [one for one in level if isinstance(one, dict | list)]
        if not inner:
            return False
        level = [
            member for one in inner for member in (one.values() if isinstance(one, dict) else one)
        ]
    return True
