"""What ``estat audit`` is asked to look at: a bucket, the prefix of its events, a part of it.

``s3://bucket/raw/dt=2025-11-13`` is the range ``dt=2025-11-13`` of the prefix
``raw``; the streams' records are beside the prefix, in ``raw_streams``. A range
is a beginning of keys: ``dt=2025-11`` is a month. A path may name a bucket's
directory, its prefix, or a range in it. The files there tell which. Without files only the
events that wait on disk can tell, so a path then has several readings.
"""

import os
from functools import cache
from typing import NamedTuple

from estat.config.settings import Settings
from estat.errors import EstatError
from estat.events import ids

_S3, _FILE = "s3://", "file:"
_PARTITION = "dt="


class TargetError(EstatError):
    """The target can't be audited; the message says why."""


class Target(NamedTuple):
    """A range of keys: those of ``raw_prefix`` that go on with ``part``."""

    bucket: str  # as RAW_BUCKET
    raw_prefix: str
    part: str = ""  # empty: all of the prefix

    @property
    def keys(self) -> str:
        """What the keys of the range begin with."""
        return f"{self.raw_prefix}/{self.part}"

    @property
    def records(self) -> str:
        """What the keys of the streams' records begin with."""
        return ids.record_key(self.raw_prefix, "").removesuffix(".json")

    @property
    def closed(self) -> str:
        """What the keys of the servers' markers of the range's hours begin with."""
        return ids.closed_key(self.raw_prefix, self.part, "").removesuffix("/.json")

    @property
    def is_partial(self) -> bool:
        """Whether streams may have objects outside of the range."""
        return not _PARTITION.startswith(self.part)

    @property
    def is_directory(self) -> bool:
        """Whether the bucket is a local directory."""
        return self.bucket.startswith(_FILE)

    def __str__(self) -> str:
        if self.is_directory:
            return os.path.join(self.bucket.removeprefix(_FILE), self.keys)
        return f"{_S3}{self.bucket}/{self.keys}"


def possible(text: str | None, settings: Settings, *, with_disk: bool) -> list[Target]:
    """Read a target; without one the settings tell. Raises TargetError.

    Returns all that it may mean, the likeliest first. That is one target, unless it is a
    path where nothing is stored yet and what waits on disk is looked at too.
    """
    if not text:
        return [Target(settings.raw_bucket, settings.raw_prefix)]
    if text.startswith(_S3):
        return [_in_s3(text, settings)]
    if "://" in text:
        raise TargetError(f"{text}: not s3://bucket/prefix and not a directory")
    return _in_directory(text.removeprefix(_FILE), settings, with_disk=with_disk)


def is_same_bucket(one: str, other: str) -> bool:
    """Compare two buckets, a directory with all its names."""
    return _resolved(one) == _resolved(other)


@cache
def _resolved(bucket: str) -> str:
    if not bucket.startswith(_FILE):
        return bucket
    return _FILE + os.path.realpath(bucket.removeprefix(_FILE))


def bucket_of(text: str) -> str:
    """Return what RAW_BUCKET would be for a target."""
    return text.removeprefix(_S3).partition("/")[0] if text.startswith(_S3) else f"{_FILE}."


def _in_s3(text: str, settings: Settings) -> Target:
    bucket, _, path = text.removeprefix(_S3).partition("/")
    raw_prefix, part = _divided(path)
    if not raw_prefix and part:
        raise TargetError(f"{text}: the prefix before {_PARTITION} is missing")
    return Target(bucket, raw_prefix or settings.raw_prefix, part)


def _in_directory(text: str, settings: Settings, *, with_disk: bool) -> list[Target]:
    path = os.path.abspath(text)
    prefix, part = _divided(path + "/" if text.endswith("/") else path)
    name = os.path.basename(prefix)
    if prefix.endswith(f"/{settings.raw_prefix}"):
        name = settings.raw_prefix  # which may have several parts
    root = prefix.removesuffix(name)
    as_prefix = Target(_FILE + os.path.realpath(root), name, part)
    as_bucket = Target(_FILE + os.path.realpath(prefix), settings.raw_prefix)
    if not os.path.isdir(prefix):
        if not with_disk:
            raise TargetError(f"{text}: no such directory")
    elif part or _is_prefix(prefix):
        return [as_prefix]
    elif _is_bucket(prefix, settings.raw_prefix):
        return [as_bucket]
    if not with_disk or part:
        return [as_prefix]
    # the bucket first: as a prefix it would have DLQ files below it for objects
    return [as_bucket, as_prefix]


def _divided(path: str) -> tuple[str, str]:
    """Divide a path before its first partition."""
    names = path.split("/")
    for index, name in enumerate(names):
        if name.startswith(_PARTITION):
            return "/".join(names[:index]), "/".join(names[index:])
    return path.rstrip("/"), ""


def _is_prefix(path: str) -> bool:
    return os.path.isdir(f"{path}_streams") or any(
        name.startswith(_PARTITION) for name in os.listdir(path)
    )


def _is_bucket(path: str, raw_prefix: str) -> bool:
    return any(
        os.path.isdir(os.path.join(path, raw_prefix + end)) for end in ("", "_streams", "_closed")
    )
