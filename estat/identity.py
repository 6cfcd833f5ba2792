"""Names that are given once and kept for ever: streams, event ids, object keys.

    stream   0199c1b2f3a4-8e5d…          12 hex digits of unix milliseconds, then 16 random
    event    <stream>-<n>                 n counts 1, 2, 3 … without gaps
    object   <prefix>/dt=2025-11-13/hr=07/<unix>_<instance>-<stream>_<seq>.jsonl.gz
    record   <prefix>_streams/<stream>.json

Time comes first in each, so names sort by age.
"""

import re
import secrets
import time
from datetime import datetime
from zoneinfo import ZoneInfo

SUFFIX = ".jsonl.gz"

_STREAM = re.compile(r"[0-9a-f]{28}")
_STEM = re.compile(r"(?P<unix>\d+)_(?P<instance>[A-Za-z0-9.-]+)-(?P<stream>[0-9a-f]{28})_\d+")


def new_stream() -> str:
    """Name one life of one process. Call it after fork: the random half must differ."""
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
    """Return the unix time at which a stream began; None if that is no stream's name."""
    return int(stream[:12], 16) / 1000 if _STREAM.fullmatch(stream) else None


def rest_key(key: str, number: int) -> str:
    """Return the key for events that the object at ``key`` turned out to lack."""
    return f"{key.removesuffix(SUFFIX)}-r{number}{SUFFIX}"


def record_key(prefix: str, stream: str) -> str:
    """Return the key of a stream's record, written when the stream has ended cleanly."""
    return f"{prefix}_streams/{stream}.json"


def opened_at(stem: str) -> int | None:
    """Return the unix time in an object's or DLQ file's name; None if it is not one of ours."""
    match = _STEM.match(stem)
    return int(match["unix"]) if match else None
