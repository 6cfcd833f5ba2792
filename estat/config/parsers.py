"""How the text of a setting becomes its value.

Each function takes the text and returns the value, or raises ValueError or
KeyError; ``config`` makes the sentence that tells what would be valid.
"""

import os
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Network = IPv4Network | IPv6Network

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?")
_SIZE_UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
#: A key prefix; ``prefix`` also refuses the parts "." and "..".
PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=-]+(?:/[A-Za-z0-9!_.*'()=-]+)*")
_MAX_PREFIX_CHARS = 512  # a key has 1,024 bytes at most, and needs some 200 behind its prefix
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
INSTANCE = re.compile(r"[A-Za-z0-9.-]{1,48}")
_FIELD_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s/]*):(?P<port>\d{1,5})")

#: Header fields that are never stored, for they prove who somebody is.
CREDENTIALS = ("authorization", "proxy-authorization", "x-write-key")
#: Members of a stored line that no header field may replace.
_TAKEN = ("id", "ts", "ip", "write_key", "body")
_MAX_CAPTURED = 20
_MIN_KEY_CHARS = 16


def duration(text: str) -> float:
    """Parse ``500ms``, ``120s``, ``24h`` into seconds."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError
    return float(match[1]) * _DURATION_UNITS[match[2]]


def duration_text(seconds: float) -> str:
    """Write a duration so that ``duration`` gives the same number again."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f}h"
    milliseconds = f"{seconds * 1000:.0f}ms"
    if seconds < 1 and seconds == duration(milliseconds) != 0:
        return milliseconds
    return f"{seconds!r}".removesuffix(".0") + "s"  # not :g, which has six digits


def size(text: str) -> int:
    """Parse ``16384``, ``8MiB``, ``18GB`` into bytes."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError
    return int(match[1]) * _SIZE_UNITS[match[2] or ""]


def whole(text: str) -> int:
    """Parse a whole number."""
    if not re.fullmatch(r"\d+", text):
        raise ValueError
    return int(text)


def flag(text: str) -> bool:
    """Parse true or false."""
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def choice(options: Any) -> Callable[[str], str]:
    """Return a parser for the members of a Literal type."""

    def parse(text: str) -> str:
        if text.lower() not in get_args(options):
            raise ValueError
        return text.lower()

    return parse


def pattern(expected: re.Pattern[str]) -> Callable[[str], str]:
    """Return a parser for text that matches as a whole."""

    def parse(text: str) -> str:
        if not expected.fullmatch(text):
            raise ValueError
        return text

    return parse


def prefix(text: str) -> str:
    """Parse a key prefix; slashes around it are dropped."""
    text = text.strip("/")
    if len(text) > _MAX_PREFIX_CHARS or not {".", ".."}.isdisjoint(text.split("/")):
        raise ValueError
    return pattern(PREFIX)(text)


def bucket(text: str) -> str:
    """Parse a bucket's name or ``file:DIR``, the directory made absolute."""
    if text.startswith("file:"):
        path = text.removeprefix("file:")
        if not path:
            raise ValueError
        return "file:" + os.path.abspath(path.removeprefix("//"))
    return pattern(BUCKET)(text)


def address(text: str) -> str:
    """Parse ``HOST:PORT``; no host means every IPv4 address."""
    match = _ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > 65535:
        raise ValueError
    return f"{match['host'] or '0.0.0.0'}:{int(match['port'])}"  # noqa: S104 - what ":8080" means


def proxies(text: str) -> int | tuple[Network, ...]:
    """Parse a number of proxies, or their networks."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    return tuple(ip_network(part.strip()) for part in text.split(","))


def header_names(text: str) -> tuple[str, ...]:
    """Parse names of header fields that may be stored, in lower case, each once."""
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if len(names) > _MAX_CAPTURED:
        raise ValueError
    for name in names:
        # gunicorn drops a field with an underscore in its name
        if not _FIELD_NAME.fullmatch(name) or name in CREDENTIALS or name in _TAKEN:
            raise ValueError
    return names


def hash_key(text: str) -> str:
    """Parse a key that is too long to be guessed by trying a few."""
    if len(text) < _MIN_KEY_CHARS:
        raise ValueError
    return text


def zone(text: str) -> ZoneInfo:
    """Parse the name of a time zone."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, OSError) as exc:
        raise ValueError from exc


def between(parse: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """Return ``parse`` with bounds, both included."""

    def bounded(text: str) -> float:
        value = parse(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return bounded
