"""What a wrong value was perhaps meant to be.

Each rule undoes one common mistake, for any setting. A suggestion must be valid for the setting.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from ipaddress import ip_network
from zoneinfo import ZoneInfo, available_timezones

from estat.config import parsers
from estat.config.parsers import Declaration
from estat.errors import SettingsError

#: Patterns of an element of a list, or of the whole text, in any case; and what to write for it.
_RULES = (
    # durations and sizes
    (r"([\d.]+)\s*(ms|s|m(?!il|o)|h|d)[a-z]*", r"\1\2"),
    (r"([\d.]+)\s*milli\w*", r"\1ms"),
    (r"(\d+)\s*([kmgt])i?", r"\1\2iB"),
    (r"(\d+)\.0*", r"\1"),
    # true and false
    ("yes|on|y|t|enabled?", "true"),
    ("no|off|n|f|disabled?", "false"),
    # addresses
    (r"\*?:?(\d+)", r":\1"),
    (r"\w+://([\w.-]+:\d+)/?.*", r"\1"),
    (r"(?:\w+://)?([\w.-]+|\[[\da-f:.]+\]):?/*", r"\1:8080"),
    (r"([\da-f:]*:[\da-f:]*):(\d+)", r"[\1]:\2"),
    # origins
    (r"(\w+://[^/]+)/.*", r"\1"),
    (r"[\w*-]+(\.[\w-]+)+(:\d+)?/*", r"https://\g<0>"),
    # directories
    (r"file:(?://)?(.+)", r"\1"),
)
_OF_BUCKETS = ((r"https?://([\w.-]+)\.s3[.-].*", r"\1"), (r"\.{0,2}/.*", r"file:\g<0>"))

#: A bucket's name and what stands behind it in a URL.
_BUCKET_URL = re.compile(
    r"(?=s3[an]?:|arn:|[a-z0-9][^:]*/)(?:s3[an]?:/*|arn:[\w:-]+:::)?([^/]+)/*(.*?)/*"
)

_CHOICE = re.compile(r"[\w-]+(, [\w-]+)* or [\w-]+")


def suggestion(name: str, declared: Declaration, text: str) -> str:
    """Return what to write in place of a wrong value, as ``NAME=value``; empty if nobody knows."""
    plain = re.sub(r"\s(#|[A-Z][A-Z0-9_]+=).*", "", text).strip(" \t'\"`")
    plain = re.sub(r"^(file:)?~", lambda match: (match[1] or "") + os.path.expanduser("~"), plain)
    url = declared.parse is parsers.bucket and _BUCKET_URL.fullmatch(plain)
    if url:
        prefix = f" RAW_PREFIX={url[2]}/" if url[2] and name == "RAW_BUCKET" else ""
        return f"{name}={url[1]}{prefix}"
    for candidate in _candidates(plain, declared):
        for meant in (candidate, candidate.lower(), candidate.upper().replace("IB", "iB")):
            with suppress(ValueError, KeyError, OSError, SettingsError):
                declared.parse(meant)
                return f"{name}={meant}"
    return ""


def _candidates(plain: str, declared: Declaration) -> Iterator[str]:
    """Yield what may be meant, the likeliest first."""
    unit = re.fullmatch(r"[\d.]+([A-Za-z]*)", declared.default or "")
    yield from (plain, f"{plain}{unit[1]}" if unit else plain)
    yield re.sub(r"(?<=\d)[,_' ](?=\d{3}\b)", "", plain)
    if declared.parse is parsers.prefix:
        yield re.sub("//+", "/", re.sub("^s3[an]?:/*[^/]+/*", "", plain))
    parts = re.split(r"\s*[,;]\s*", plain.strip(",; "))
    yield ",".join(parts)
    for pattern, new in _OF_BUCKETS if declared.parse is parsers.bucket else _RULES:
        yield ",".join(re.sub(f"(?i:^(?:{pattern})$)", new, part) for part in parts)
    yield ",".join(plain.split())
    yield from (re.sub(r"[_\s]+", "-", plain), plain.replace("-", "_"))
    yield re.sub(r"(?<=\d)[\s-](?=\d)", "", plain)
    with suppress(ValueError):
        yield ",".join(str(ip_network(part, strict=False)) for part in parts)
    if _CHOICE.fullmatch(declared.valid):
        words = re.findall(r"[\w-]+", declared.valid.lower())
        yield from get_close_matches(plain.lower(), words, n=1)
    if declared.parse is ZoneInfo:
        city = plain.lower().replace(" ", "_").rpartition("/")[2]
        yield from (zone for zone in available_timezones() if zone.lower().endswith(f"/{city}"))
