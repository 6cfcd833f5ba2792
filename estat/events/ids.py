"""Names that are given once and kept for ever: streams, event ids, object keys.

    stream   0199c1b2f3a4-8e5d…          12 hex digits of unix milliseconds, then 16 random
    event    <stream>-<n>                 n counts 1, 2, 3 … without gaps
    object   <prefix>/dt=2025-11-13/hr=07/<unix>_<instance>-<stream>_<seq>.jsonl.gz
    record   <prefix>_streams/<stream>.json
    hour     <prefix>_closed/dt=2025-11-13/hr=07/<server>.json

Time comes first in each, so names sort by age.

A file on disk may say anything of these: ``check`` tells whether this server may have written
it, with whatever RAW_PREFIX, RAW_BUCKET and INSTANCE_ID it had then.
"""

import re
import secrets
import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, cast
from zoneinfo import ZoneInfo

from estat.errors import LaterVersion, NotOurs

SUFFIX = ".jsonl.gz"

#: A key prefix. The parts "." and ".." have this form and are refused apart from it.
PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=-]+(?:/[A-Za-z0-9!_.*'()=-]+)*")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
INSTANCE: re.Pattern[str] = re.compile(r"[A-Za-z0-9.-]{1,48}")

#: Every stored line begins so; its id follows.
LINE_START: bytes = b'{"id":"'

#: Keys in S3 are no longer (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html).
_MAX_KEY_CHARS = 1024

#: Events of one batch, or of one range of a journal: a file's name has nine digits for them.
MAX_EVENTS = 10**9 - 1

_MAX_NUMBER = 10**18  # a journal's lines have no larger one
_MAX_SECONDS = 253_402_000_000  # calendars end with the year 9999

_STREAM = re.compile(r"[0-9a-f]{28}")
# what has more digits would not fit the accounting
_NAME = re.compile(
    rf"(?P<unix>[0-9]{{1,12}})_(?P<instance>[A-Za-z0-9.-]+)-(?P<stream>{_STREAM.pattern})_[0-9]+"
    r"(?:-r[0-9]{1,3})?"
)
_FILE = re.compile(
    rf"(?:.*/)?{_NAME.pattern}(?P<damaged>-bad[0-9]+)?(?:\.(?P<events>[0-9]{{1,9}}))?\.[^/]*",
    re.DOTALL,
)
_ID = re.compile(rf"(?P<stream>{_STREAM.pattern})-(?P<number>[1-9][0-9]{{0,17}})")
_LINE = re.compile(rb'%b(%b)"' % (re.escape(LINE_START), _ID.pattern.encode()))
_PARTITION = "dt=[0-9]{4}-[0-9]{2}-[0-9]{2}/hr=[0-9]{2}"
_KEY = re.compile(
    rf"(?P<prefix>{PREFIX.pattern})/(?P<partition>{_PARTITION})/{_NAME.pattern}{re.escape(SUFFIX)}"
)
_RECORD = re.compile(rf"{PREFIX.pattern}_streams/(?P<stream>{_STREAM.pattern})\.json")
_DIRECTORY = "file:/"
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


class EventId(NamedTuple):
    """An event's id."""

    stream: str
    number: int

    def __str__(self) -> str:
        return f"{self.stream}-{self.number}"


class Key(NamedTuple):
    """What the key of an object tells."""

    prefix: str
    partition: str
    instance: str
    stream: str

    @property
    def hour(self) -> int:
        """The partition as a number, ``2025111307``: hours sort by it."""
        return int("".join(filter(str.isdecimal, self.partition)))


class Name(NamedTuple):
    """What the name of an object or a DLQ file tells."""

    opened: int  # unix seconds
    instance: str
    stream: str
    damaged: bool  # bytes of a journal, not a batch
    events: int | None  # None of an object, whose name has no count


def new_stream() -> str:
    """Name one run of one process. Call it after fork: the random half must differ."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(8)}"


def partition(unix_seconds: float, zone: ZoneInfo) -> str:
    """Return the hive partition of an instant, ``dt=YYYY-MM-DD/hr=HH``."""
    return datetime.fromtimestamp(unix_seconds, zone).strftime("dt=%Y-%m-%d/hr=%H")


def object_key(
    prefix: str, partition_path: str, opened: float, instance: str, stream: str, seq: int
) -> str:
    """Return the key of a batch, which every attempt and every replay uses."""
    return f"{prefix}/{partition_path}/{int(opened)}_{instance}-{stream}_{seq:06d}{SUFFIX}"


def stem(key: str) -> str:
    """Return an object's name without directory and suffix; its batch's DLQ file is named so."""
    return key.rpartition("/")[2].removesuffix(SUFFIX)


def started_at(stream: str) -> float | None:
    """Return the unix time at which a stream began; None if that is no stream's name.

    It is a time that a calendar has, whatever the name says.
    """
    return min(int(stream[:12], 16) / 1000, _MAX_SECONDS) if _STREAM.fullmatch(stream) else None


def rest_key(key: str, number: int) -> str:
    """Return the key for events that the object at ``key`` turned out to lack."""
    return f"{key.removesuffix(SUFFIX)}-r{number}{SUFFIX}"


def record_key(prefix: str, stream: str) -> str:
    """Return the key of a stream's record, written when the stream has ended cleanly."""
    return f"{prefix}_streams/{stream}.json"


def read_key(key: str) -> Key:
    """Read the key of an object. Raises NotOurs if it is not of this server's form."""
    match = _KEY.fullmatch(key)
    if not match:
        raise NotOurs(f"its key is {_shown(key)}")
    return Key(*match.group("prefix", "partition", "instance", "stream"))


def closed_key(prefix: str, partition: str, server: str) -> str:
    """Return the key under which a server says what it took in an hour; see ``closed_hour``."""
    return f"{prefix}_closed/{partition}/{server}.json"


def read_name(name: str) -> Name | None:
    """Read the name of an object or a DLQ file, with or without its directory.

    None if it is not of this server's form.
    """
    match = _FILE.fullmatch(name)
    if not match:
        return None
    return Name(
        opened=int(match["unix"]),
        instance=match["instance"],
        stream=match["stream"],
        damaged=match["damaged"] is not None,
        events=int(match["events"]) if match["events"] else None,
    )


def event_id(text: str) -> EventId | None:
    """Read an event's id; None if it is not of this server's form."""
    match = _ID.fullmatch(text)
    return EventId(match["stream"], int(match["number"])) if match else None


def id_of_line(line: bytes) -> EventId | None:
    """Return the id with which a stored line begins; None if that is not of this server's form."""
    match = _LINE.match(line)
    return event_id(match[1].decode()) if match else None


def ids_in(data: bytes) -> Iterator[EventId]:
    """Yield the ids of the lines in some bytes, whatever stands around them."""
    for match in _LINE.finditer(data):
        yield EventId(match["stream"].decode(), int(match["number"]))


def unreadable_key(prefix: str, crc32: int, name: str) -> str:
    """Return the key of a file that can't be read, for a person to look at.

    The checksum of its bytes keeps a second file of the same name apart from the first.
    """
    return f"{prefix}/{crc32:08x}-{_NOT_PLAIN.sub('_', name)}"


def is_within(key: str) -> bool:
    """Tell whether a key, as a path, stays below its bucket's directory."""
    return "\0" not in key and ".." not in key.split("/")


def check(bucket: object, key: object, name: object, stream: object) -> None:
    """Raise NotOurs unless a file's words are such as this server writes.

    ``name`` is the DLQ file's, without count and suffix. Of a bucket only the form is looked
    at: whether a directory may be written to is up to the settings (see ``stores``).
    """
    if not (isinstance(stream, str) and _STREAM.fullmatch(stream)):
        raise NotOurs(f"its stream is {_shown(stream)}")
    named = _NAME.fullmatch(name) if isinstance(name, str) else None
    if not named or named["stream"] != stream:
        raise NotOurs(f"its name is {_shown(name)}")
    if not (isinstance(key, str) and _stream_of(key) == stream):
        raise NotOurs(f"its key is {_shown(key)}")
    if not (isinstance(bucket, str) and _is_bucket(bucket)):
        raise NotOurs(f"its bucket is {_shown(bucket)}")


def check_number(what: str, value: object, most: int = _MAX_NUMBER) -> None:
    """Raise NotOurs unless a file's word is a number that this server counts to."""
    if type(value) is not int or not 0 <= value <= most:
        raise NotOurs(f"its {what} is {_shown(value)}")


def check_version(value: object, known: int) -> None:
    """Raise LaterVersion for the version of a format that this server does not know yet."""
    if type(value) is int and value > known:
        raise LaterVersion("it has the format of a later version")


def check_time(what: str, value: object) -> None:
    """Raise NotOurs unless a file's word is a time (unix seconds) that a calendar has."""
    # no bool, which is an int; NaN is in no order
    if type(value) not in (int, float) or not 0 <= cast("float", value) <= _MAX_SECONDS:
        raise NotOurs(f"its {what} is {_shown(value)}")


def _stream_of(key: str) -> str | None:
    """Return the stream in the key of an object or a record; None if it is not one of ours."""
    match = _KEY.fullmatch(key) or _RECORD.fullmatch(key)
    if not match or len(key) > _MAX_KEY_CHARS or not {".", ".."}.isdisjoint(key.split("/")):
        return None
    return match["stream"]


def _is_bucket(bucket: str) -> bool:
    return bucket.startswith(_DIRECTORY) or BUCKET.fullmatch(bucket) is not None


def _shown(value: object) -> str:
    """Return what a file says, fit for a log line."""
    return f"{ascii(value)[:100]}, which is not of this server's form"
