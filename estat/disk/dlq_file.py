"""The format of a DLQ file: a batch with all that is needed to store it.

    +----------------------------+-------------------------------+
    | gzip member: one JSON line | gzip member(s): the object's  |
    | about the batch            | own bytes                     |
    +----------------------------+-------------------------------+

Both parts are gzip, so ``zcat FILE`` shows first why the file is there, then
its events. The line holds format, bucket, key, stream, ids, counts, size and
CRC-32 of the object's bytes, and the error that brought it here. The number of
events is in the file's name as well, so that a directory can be counted without
opening its files:

    <unix>_<instance>-<stream>_<seq>.<events>.jsonl.gz

Whatever a later version changes, its files begin with a gzip member of one JSON line that has its
number as "estat_dlq". Such a file is left alone (LaterVersion).
"""

import json
from typing import Any, NamedTuple

from isal import isal_zlib

from estat.errors import NotOurs, Unreadable
from estat.events import ids
from estat.events.batch import Batch, crc32_of
from estat.events.gzip import gzip

_FORMAT = 1

#: About the most that a header takes. It is bounded, because admission counts with it.
OVERHEAD_BYTES = 2048
_MAX_ERROR_CHARS = 200

#: A header ends within, whatever its key and error.
HEADER_READ_BYTES = 4 * OVERHEAD_BYTES
_MAX_HEADER_BYTES = 64 * 1024  # inflated; a bomb is no header
_GZIP = 16 + isal_zlib.MAX_WBITS

#: What the header line says in the batch's own words.
_FACTS = ("bucket", "key", "name", "stream", "first", "last", "events", "crc32", "opened")


class FileName(NamedTuple):
    """What a DLQ file's name tells; ``opened`` is None if it is not one of ours."""

    events: int
    opened: int | None


def file_name(batch: Batch) -> str:
    """Return the name of a batch's file."""
    return name_for(batch.name, batch.events)


def name_for(name: str, events: int) -> str:
    """Return the name of a file with so many events of the batch ``name``."""
    return f"{name}.{events}{ids.SUFFIX}"


def parse_name(name: str) -> FileName:
    """Read a file's name; a strange one holds no events that are ours."""
    found = ids.read_name(name)
    if found is None or found.events is None or not name.endswith(ids.SUFFIX):
        return FileName(0, None)
    return FileName(found.events, found.opened)


def pack(batch: Batch, reason: str, error: str) -> list[bytes]:
    """Return the parts of a batch's file."""
    about = {
        "estat_dlq": _FORMAT,
        "reason": reason,
        "error": error[:_MAX_ERROR_CHARS],
        **{fact: getattr(batch, fact) for fact in _FACTS},
        "bytes": len(batch.payload),
    }
    return [gzip(json.dumps(about).encode() + b"\n"), batch.payload]


def read_header(data: bytes) -> dict[str, Any]:
    """Return the facts in the first bytes of a file, HEADER_READ_BYTES. Raises Unreadable."""
    return _header(data)[0]


def read(file_name: str, data: bytes) -> Batch:
    """Return the batch of a file. Raises Unreadable, and NotOurs, as ``unpack`` does."""
    about, payload = _header(data)
    check_header(file_name, about)
    return _unpacked(about, payload)


def unpack(data: bytes) -> Batch:
    """Return the batch of a file's content, whatever the file is called.

    Raises Unreadable unless every byte is right, and NotOurs where all are, and say what this
    server never writes.
    """
    about, payload = _header(data)
    _check(about)
    return _unpacked(about, payload)


def _unpacked(about: dict[str, Any], payload: bytes) -> Batch:
    batch = Batch(**{fact: about[fact] for fact in _FACTS}, payload=payload)
    if len(batch.payload) != about["bytes"]:
        raise Unreadable(f"{len(batch.payload)} bytes of {about['bytes']}")
    if crc32_of(batch.payload) != batch.crc32:
        raise Unreadable("checksum does not match")
    return batch


def check_header(file_name: str, about: dict[str, Any]) -> None:
    """Raise NotOurs unless a file's name and header line are such as this server writes.

    The accounting holds what the name tells, so it must be that of the header's batch.
    """
    _check(about)
    name = name_for(about["name"], about["events"])
    if file_name != name:
        raise NotOurs(f"its name is not that of its batch, {name}")


def _check(about: dict[str, Any]) -> None:
    """Raise NotOurs unless the facts of a header line are such as this server writes."""
    ids.check(*map(about.get, ("bucket", "key", "name", "stream")))
    for name in ("first", "last", "bytes", "crc32"):
        ids.check_number(name, about.get(name))
    ids.check_number("events", about.get("events"), ids.MAX_EVENTS)
    ids.check_time("opened", about.get("opened"))
    if about["events"] > about["last"] - about["first"] + 1:
        raise NotOurs("its number of events is not that of its ids")


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the facts of the header line and what follows its member. Raises Unreadable."""
    inflater = isal_zlib.decompressobj(_GZIP)
    try:
        about = json.loads(inflater.decompress(data, _MAX_HEADER_BYTES))
    except (isal_zlib.error, ValueError, RecursionError) as exc:  # type: ignore[misc]
        raise Unreadable(f"no header: {type(exc).__name__}: {exc}") from exc
    if not inflater.eof:
        raise Unreadable("cut off within its header, or too long a header")
    version = about.get("estat_dlq") if isinstance(about, dict) else None
    ids.check_version(version, _FORMAT)
    if version != _FORMAT:
        raise Unreadable("its first line is not a header of a known format")
    return about, inflater.unused_data
