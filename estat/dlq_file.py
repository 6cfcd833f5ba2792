"""The format of a DLQ file: a batch that knows all about itself.

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
"""

import json
from typing import IO, Any, NamedTuple

from isal import isal_zlib

from estat import identity
from estat.batch import Batch, crc32_of
from estat.encoder import gzip
from estat.errors import Unreadable

_FORMAT = 1

#: What the header may cost at most, by and large: bounded, because admission counts with it.
OVERHEAD_BYTES = 2048
_MAX_ERROR_CHARS = 200
_HEADER_READ_BYTES = 4 * OVERHEAD_BYTES  # a header is within, whatever its key and error
_GZIP = 16 + isal_zlib.MAX_WBITS


class FileName(NamedTuple):
    """What a DLQ file's name tells; ``opened`` is None if it is not one of ours."""

    events: int
    opened: int | None


def file_name(batch: Batch) -> str:
    """Return the name of a batch's file."""
    return name_for(batch.name, batch.events)


def name_for(name: str, events: int) -> str:
    """Return the name of a file with so many events of the batch ``name``."""
    return f"{name}.{events}{identity.SUFFIX}"


def parse_name(name: str) -> FileName:
    """Read a file's name; a strange one holds no events that are ours."""
    stem, _, events = name.removesuffix(identity.SUFFIX).rpartition(".")
    opened = identity.opened_at(stem)
    if (
        opened is None
        or not (events.isascii() and events.isdigit())
        or not name.endswith(identity.SUFFIX)
    ):
        return FileName(0, None)
    return FileName(int(events), opened)


def pack(batch: Batch, reason: str, error: str) -> list[bytes]:
    """Return the parts of a batch's file."""
    about = {
        "estat_dlq": _FORMAT,
        "reason": reason,
        "error": error[:_MAX_ERROR_CHARS],
        "bucket": batch.bucket,
        "key": batch.key,
        "name": batch.name,
        "stream": batch.stream,
        "first": batch.first,
        "last": batch.last,
        "events": batch.events,
        "bytes": len(batch.payload),
        "crc32": batch.crc32,
        "opened": batch.opened,
    }
    return [gzip(json.dumps(about).encode() + b"\n"), batch.payload]


def read_header(file: IO[bytes]) -> dict[str, Any]:
    """Return the facts of a file's header line, without reading its events.

    Raises Unreadable, and OSError as reading does.
    """
    return _header(file.read(_HEADER_READ_BYTES))[0]


def unpack(data: bytes) -> Batch:
    """Return the batch of a file's content. Raises Unreadable unless every byte is right."""
    about, payload = _header(data)
    try:
        batch = Batch(
            bucket=_field(about, "bucket", str),
            key=_field(about, "key", str),
            name=_field(about, "name", str),
            stream=_field(about, "stream", str),
            first=_field(about, "first", int),
            last=_field(about, "last", int),
            events=_field(about, "events", int),
            payload=payload,
            crc32=_field(about, "crc32", int),
            opened=float(_field(about, "opened", int | float)),
        )
        expected_bytes = about["bytes"]
    except (KeyError, TypeError) as exc:
        raise Unreadable(f"no header: {type(exc).__name__}: {exc}") from exc
    if len(batch.payload) != expected_bytes:
        raise Unreadable(f"{len(batch.payload)} bytes of {expected_bytes}")
    if crc32_of(batch.payload) != batch.crc32:
        raise Unreadable("checksum does not match")
    return batch


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the facts of the header line and what follows its member. Raises Unreadable."""
    inflater = isal_zlib.decompressobj(_GZIP)
    try:
        about = json.loads(inflater.decompress(data))
    except (isal_zlib.error, ValueError, RecursionError) as exc:  # type: ignore[misc]
        raise Unreadable(f"no header: {type(exc).__name__}: {exc}") from exc
    if not inflater.eof:
        raise Unreadable("cut off within its header")
    if not isinstance(about, dict) or about.get("estat_dlq") != _FORMAT:
        raise Unreadable("its first line is not a header of a known format")
    return about, inflater.unused_data


def _field(about: dict[str, Any], name: str, kind: Any) -> Any:
    value = about[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r:.50}")
    return value
