"""How the text of a setting becomes its value, and what it takes.

Each function takes the text and returns the value, or raises ValueError, KeyError
or OSError; ``loading`` makes the sentence that tells what would be valid. The rules
for an S3 bucket are AWS's own; what fits them may still be refused by the bucket,
which ``estat check`` tells.
"""

import os
import re
import socket
from collections.abc import Callable, Iterable
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from estat.errors import SettingsError
from estat.events import charsets, ids
from estat.events.schema import Schema

T = TypeVar("T", bound=str)

Network = IPv4Network | IPv6Network

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WHOLE = re.compile(r"\d+")
_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?")
_DECIMAL_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE_UNITS = _DECIMAL_UNITS | {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_MAX_PREFIX_CHARS = 512  # a key has 1,024 bytes at most, and needs some 200 behind its prefix
_FIELD_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_DIRECTORY = re.compile(r"file:(?://)?+(?P<path>.+)")
#: No path but one with quotes, for a shell, or with a comment or another setting behind it.
_NO_PATH = re.compile(r"""['"`~$].*|(?i:file|https?|s3[an]?):.*|.*['"`;,]|.*\s(?:#|[A-Z_]+=).*""")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]*):(?P<port>\d{1,5})")

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - looked up, not bound

#: Header fields that are never stored, for they prove who somebody is.
CREDENTIALS = ("authorization", "proxy-authorization", "x-write-key")
#: Members of a stored line that no header field may replace.
_TAKEN = ("id", "ts", "ip", "write_key", "query", "path", "body")
_MAX_CAPTURED = 20
#: Write keys at a time, and so the values of the label that counts them.
MAX_WRITE_KEYS = 32
# what fits a Bearer token (RFC 6750), a header field and a query
_WRITE_KEY = re.compile(r"(?:(?P<name>[A-Za-z0-9_.-]{1,64}):)?(?P<key>[A-Za-z0-9._~+/-]+=*)")

#: The value of ALLOWED_ORIGINS that stands for every origin.
ANY_ORIGIN = "*"
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<name>(?:\*\.)?[a-z0-9_-][a-z0-9._-]*)|\[(?P<ipv6>[0-9a-f:.]+)\])"
    r"(?P<port>:[1-9]\d{0,4})?|null|file://"
)
#: A name that browsers take for an address, for its last part is a number.
_IPV4 = re.compile(r".*(^|\.)(0x[0-9a-f]*|\d+)")
#: The port that browsers leave out, by the scheme.
DEFAULT_PORTS = {"http": ":80", "https": ":443"}

#: The settings that say how RAW_BUCKET is written to and read.
BUCKET_SETTINGS = (
    "S3_KMS_KEY_ID",
    "S3_STORAGE_CLASS",
    "S3_OBJECT_TAGS",
    "S3_EXPECTED_BUCKET_OWNER",
    "S3_ROLE_ARN",
    "S3_ROLE_EXTERNAL_ID",
)
#: How the names of S3 Express's buckets end, which want sessions and list in no order.
_DIRECTORY_BUCKET = "--x-s3"

#: Classes whose objects can be read at once: `estat audit`, and the comparison of ids after a
#: 412, read objects. GLACIER and DEEP_ARCHIVE want a restore first; the rest is not of general
#: purpose buckets, or given up (REDUCED_REDUNDANCY).
STORAGE_CLASSES = ("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR")

# https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#key-id
_KEY = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}"
_ALIAS = r"alias/[A-Za-z0-9/_-]{1,250}"
_KMS_KEY = re.compile(
    rf"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{{12}}:(?:key/(?:{_KEY})|{_ALIAS})"
    rf"|{_KEY}|{_ALIAS}"
)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
_TAG_KEY = re.compile(r"(?!(?i:aws:))[\w .:/=+@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
_MAX_TAGS = 10


class Declaration(NamedTuple):
    """What is known of a setting besides its name, its type and what it does.

    ``parse`` makes its value of a text, or raises ValueError, KeyError, OSError or
    SettingsError. ``valid`` says what it takes, as the end of the sentence "it must be …".
    """

    parse: Callable[[str], Any]
    valid: str
    unset: Callable[[], Any] = str  # the value of an empty default
    secret: bool = False
    default: str | None = ""  # None: required

    def value(self, text: str) -> Any:
        """Return the value of a text, which may be empty. Raises what ``parse`` does."""
        return self.parse(text) if text else self.unset()


def _matched(expected: re.Pattern[str], text: str) -> re.Match[str]:
    """Return the match of the whole text. Raises ValueError if there is none."""
    match = expected.fullmatch(text)
    if not match:
        raise ValueError
    return match


def duration(text: str) -> float:
    """Parse ``500ms``, ``120s``, ``24h`` into seconds."""
    match = _matched(_DURATION, text)
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
    match = _matched(_SIZE, text)
    return int(match[1]) * _SIZE_UNITS[match[2] or ""]


def whole(text: str) -> int:
    """Parse a whole number."""
    return int(_matched(_WHOLE, text)[0])


def flag(text: str) -> bool:
    """Parse true or false."""
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def choice(options: Iterable[T]) -> Callable[[str], T]:
    """Return a parser for one of several words, in capitals or not. It raises KeyError."""
    by_name = {option.lower(): option for option in options}
    return lambda text: by_name[text.lower()]


def pattern(expected: re.Pattern[str]) -> Callable[[str], str]:
    """Return a parser for text that matches as a whole."""
    return lambda text: _matched(expected, text)[0]


def _host_name() -> str:
    """Return the host's name, without what an object's key can't have."""
    cleaned = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:48]
    return cleaned or "instance"


def prefix(text: str) -> str:
    """Parse a key prefix; slashes around it are dropped."""
    text = text.strip("/")
    if len(text) > _MAX_PREFIX_CHARS or not {".", ".."}.isdisjoint(text.split("/")):
        raise ValueError
    return _matched(ids.PREFIX, text)[0]


def directory(text: str) -> str:
    """Parse the path of a directory; make it absolute."""
    if _NO_PATH.fullmatch(text):
        raise ValueError
    return os.path.abspath(text)


def bucket(text: str) -> str:
    """Parse a bucket's name or ``file:DIR``, the directory made absolute."""
    if text.startswith("file:"):
        return "file:" + directory(_matched(_DIRECTORY, text)["path"])
    if text.endswith(_DIRECTORY_BUCKET):
        raise ValueError
    return _matched(ids.BUCKET, text)[0]


def address(text: str) -> str:
    """Parse ``HOST:PORT``; no host means every IPv4 address."""
    match = _matched(_ADDRESS, text)
    port = between(int, 0, 65535)(match["port"])
    return f"{match['host'] or '0.0.0.0'}:{port}"  # noqa: S104 - what ":8080" means


def reachable(address: str) -> str:
    """Return where a server can be asked that listens at an address, be it all of a host."""
    host, _, port = address.rpartition(":")
    return f"{_LOOPBACK.get(host, host)}:{port}"


def proxies(text: str) -> int | tuple[Network, ...]:
    """Parse a number of proxies, or their networks."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return tuple(ip_network(part.strip()) for part in text.split(","))


def header_names(text: str) -> tuple[str, ...]:
    """Parse names of header fields that may be stored, in lower case, each once."""
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if len(names) > _MAX_CAPTURED:
        raise ValueError
    for name in names:
        # gunicorn drops a field with an underscore in its name
        member = name.replace("-", "_")
        if not _FIELD_NAME.fullmatch(name) or name in CREDENTIALS or member in _TAKEN:
            raise ValueError
    return names


class WriteKey(NamedTuple):
    """A write key by its name and its SHA-256, so that no setting shows the key itself."""

    name: str
    digest: bytes


def write_keys(text: str) -> tuple[WriteKey, ...]:
    """Parse ``key`` or ``name:key``, separated by commas.

    Keys of one name count together. One without a name is called by its place: key1, key2 …
    A key that is there twice is refused, and such a name given to another key.
    """
    matches = [_matched(_WRITE_KEY, part.strip()) for part in text.split(",")]
    given = {match["name"] for match in matches}
    keys = []
    for number, match in enumerate(matches, 1):
        if not match["name"] and f"key{number}" in given:
            raise ValueError
        keys.append(WriteKey(match["name"] or f"key{number}", key_digest(match["key"])))
    if len({key.digest for key in keys}) < len(keys) or len(keys) > MAX_WRITE_KEYS:
        raise ValueError
    return tuple(keys)


def key_digest(key: str) -> bytes:
    """Return the SHA-256 by which a write key is known."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def origins(text: str) -> tuple[str, ...]:
    """Parse ``*`` or origins separated by commas, as browsers write them."""
    if text == ANY_ORIGIN:
        return (ANY_ORIGIN,)
    return tuple(_origin(part.strip().lower()) for part in text.split(","))


def _origin(text: str) -> str:
    match = _matched(_ORIGIN, text)
    if match["ipv6"]:
        text = text.replace(match["ipv6"], str(IPv6Address(match["ipv6"])))
    elif match["scheme"] in DEFAULT_PORTS and _IPV4.fullmatch(match["name"]):
        IPv4Address(match["name"])  # they write it in full
    if match["port"]:
        between(int, 1, 65535)(match["port"][1:])
        if match["port"] == DEFAULT_PORTS.get(match["scheme"]):
            return text.removesuffix(match["port"])
    return text


def charset(text: str) -> str:
    """Parse an encoding's label."""
    if not charsets.codec(text):
        raise ValueError
    return text


def kms_region(key: str) -> str:
    """Return the region that a key's ARN names; empty for an id or an alias."""
    match = _KMS_KEY.fullmatch(key)
    return (match and match["region"]) or ""


def tags(text: str) -> tuple[str, ...]:
    """Parse ``key=value,key2=value2``; each tag is returned as ``key=value``."""
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key in found:
            raise ValueError
        found[_matched(_TAG_KEY, key)[0]] = _matched(_TAG_VALUE, value)[0]
    if len(found) > _MAX_TAGS:
        raise ValueError
    return tuple(f"{key}={value}" for key, value in found.items())


def between(parse: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """Return ``parse`` with bounds, both included."""

    def bounded(text: str) -> float:
        value = parse(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return bounded


def schema(text: str) -> Schema:
    """Read a schema's file now: a worker that starts later must not find another.

    Raises SettingsError with what is wrong in it.
    """
    path = os.path.abspath(text)
    try:
        return Schema(path)
    except (ValueError, OSError) as exc:
        problem = f"EVENT_SCHEMA={text!r} is not valid: {exc}"
        raise SettingsError([problem]) from exc


FLAG = Declaration(flag, "true or false")
PREFIX = Declaration(
    prefix, "letters, digits and -_.=!*'() in parts joined by /, none of them . or .."
)
BUCKET = Declaration(
    bucket, "an S3 bucket's name that does not end with --x-s3, or file:DIR for a local directory"
)
DIRECTORY = Declaration(directory, "the path of a directory, without ~, $ or quotes")
ADDRESS = Declaration(address, "HOST:PORT or :PORT, the port from 0 to 65535")
REGION = Declaration(pattern(re.compile("[a-z0-9-]*")), "a region's name, e.g. eu-central-1")
KMS_KEY = Declaration(pattern(_KMS_KEY), "a key id, alias/NAME, or the ARN of a key or an alias")
TAGS = Declaration(
    tags,
    "at most 10 tags as key=value,key2=value2; keys of 128 and values of 256 characters at most, "
    "of letters, digits, spaces and +-=._:/@; each key once, none that begins with aws:",
    unset=tuple,
)
OWNER = Declaration(pattern(re.compile("[0-9]{12}")), "the 12 digits of an AWS account")
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
ROLE = Declaration(
    pattern(re.compile("arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,576}")),
    "a role's ARN, e.g. arn:aws:iam::123456789012:role/NAME",
)
EXTERNAL_ID = Declaration(
    pattern(re.compile("[A-Za-z0-9_+=,.@:/-]{2,1224}")), "2 to 1,224 letters, digits and _+=,.@:/-"
)
TIME_ZONE = Declaration(ZoneInfo, "a name from the tz database, e.g. UTC or Asia/Seoul")
PROXIES = Declaration(proxies, "a number of proxies, or networks such as 10.0.0.0/8,fd00::/8")
# too long to be guessed by trying a few
HASH_KEY = Declaration(pattern(re.compile("(?s).{16,}")), "at least 16 characters", secret=True)
HEADER_NAMES = Declaration(
    header_names,
    f"at most {_MAX_CAPTURED} names of header fields (letters, digits, hyphens) with commas "
    f"between; none of a credential, which is never stored ({', '.join(CREDENTIALS)}), and none "
    "that is a name in the record (id, ts, ip, write-key, query, path, body)",
    unset=tuple,
)
ORIGINS = Declaration(
    origins,
    "*, or origins separated by commas, e.g. https://example.com,http://localhost:3000: "
    "scheme://host or scheme://host:port, no path, no slash at the end, names beyond ASCII as "
    "xn--…; https://*.example.com for all hosts below one; null; file://",
)
WRITE_KEYS = Declaration(
    write_keys,
    f"up to {MAX_WRITE_KEYS} different keys separated by commas, each key or name:key; a key has "
    "letters, digits and ._~+/- with = only at its end, a name letters, digits and _.-; an "
    "unnamed key is called key and its place, e.g. key1",
    unset=tuple,
    secret=True,
)
CHARSET = Declaration(
    charset,
    "a label of an encoding that contains ASCII, as pages name it, e.g. euc-kr or windows-1252",
)
SCHEMA = Declaration(schema, "a file with a JSON Schema", unset=lambda: None)
INSTANCE = Declaration(
    pattern(ids.INSTANCE), "letters, digits, . and -, 48 at most", unset=_host_name
)
