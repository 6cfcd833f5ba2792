"""What an object that was found under a batch's key has of the batch: a rule without I/O.

    its metadata names its length,
    and its ETag is no other MD5     the metadata tells: no byte of it was damaged on the way
    a whole gzip                     its ids tell; what it lacks goes up beside it
    anything else was cut off        its whole lines count; it is replaced by one that has
                                     them and the batch's, so by none with fewer ids

Lines that are not of the batch's stream belong to somebody else, and stay.
"""

from dataclasses import replace
from typing import NamedTuple

from estat.errors import StoreDenied
from estat.events import gzip, ids, json_text
from estat.events.batch import Batch, crc32_of
from estat.stores.store import Head

# A copy that was cut off is known by its beginning, as far as there is one.
_BEGINNING_BYTES = 32


class Finding(NamedTuple):
    """What is left to do. Both are None if the object has everything."""

    union: Batch | None = None  # to be put in its place
    rest: Batch | None = None  # to be put beside it


def covers(head: Head, batch: Batch) -> bool:
    """Tell from its metadata alone whether an object surely has all of a batch."""
    if not head.whole or head.may_differ_from(batch.payload):
        return False
    if not batch.events:
        return True  # a stream's record: whoever wrote it wrote the same
    described = head.metadata
    try:
        events = int(described["events"])
        first_stream, _, first = described["first-id"].rpartition("-")
        last_stream, _, last = described["last-id"].rpartition("-")
        return (
            first_stream == last_stream == batch.stream
            and events == int(last) - int(first) + 1  # without gaps
            and int(first) <= batch.first
            and batch.last <= int(last)
        )
    except (KeyError, ValueError):
        return False


def compare(body: bytes, batch: Batch) -> Finding:
    """Compare an object's content with a batch. Raises StoreDenied if another writer made it."""
    if not batch.events:
        return _compare_record(body, batch)
    ours = _numbered(gzip.gunzip(batch.payload), batch)
    if gzip.is_gzip(body):
        try:
            there = _numbered(gzip.gunzip(body), batch)
        except ValueError:
            kept = _whole_lines(gzip.gunzip_damaged(body), batch)
        else:
            rest = {number: line for number, line in ours.items() if number not in there}
            return Finding(rest=_with_lines(batch, rest)) if rest else Finding()
    else:
        kept = _whole_lines(body, batch)
    return Finding(union=_with_lines(batch, dict(sorted((kept | ours).items()))))


def is_cut_off(body: bytes, whole: bytes) -> bool:
    """Tell whether ``body`` is a damaged copy of ``whole``, not something else."""
    beginning = body.rstrip(b"\0")[: min(_BEGINNING_BYTES, len(whole))]
    return whole.startswith(beginning)


def _compare_record(body: bytes, batch: Batch) -> Finding:
    ours = gzip.gunzip(batch.payload)
    if body == ours:
        return Finding()
    try:
        said = json_text.parse(body)
    except ValueError:
        if is_cut_off(body, ours):
            return Finding(union=batch)
        said = None
    if isinstance(said, dict) and said.get("stream") == batch.stream:
        return Finding()  # whoever wrote it wrote the same
    raise _not_ours(batch)


def _numbered(lines: bytes, batch: Batch) -> dict[int, bytes]:
    """Return lines by their number. Raises StoreDenied for one that is not of the stream."""
    found = {}
    for line in lines.splitlines(keepends=True):
        number = _number(line, batch)
        if number is None:
            raise _not_ours(batch)
        found[number] = line
    return found


def _whole_lines(lines: bytes, batch: Batch) -> dict[int, bytes]:
    """Return the lines of the stream before the damage, by number.

    What stood behind a cut may have been inflated, too. So lines count only as long as they
    are JSON, each with a higher number than the one before it.
    """
    kept: dict[int, bytes] = {}
    last = 0
    for line in lines[: lines.rfind(b"\n") + 1].splitlines(keepends=True):
        number, broken = _number(line, batch), not _is_json(line)
        if number is None and not (broken and (kept or line.startswith(ids.LINE_START))):
            raise _not_ours(batch)
        if broken or number is None or number <= last:
            break
        last = number
        kept[last] = line
    return kept


def _number(line: bytes, batch: Batch) -> int | None:
    """Return the number of a line of the batch's stream; None for any other line."""
    found = ids.id_of_line(line)
    return found.number if found and found.stream == batch.stream else None


def _is_json(line: bytes) -> bool:
    try:
        json_text.parse(line)
    except ValueError:
        return False
    return True


def _with_lines(batch: Batch, lines: dict[int, bytes]) -> Batch:
    payload = gzip.gzip(b"".join(lines.values()))
    return replace(
        batch,
        first=min(lines),
        last=max(lines),
        events=len(lines),
        payload=payload,
        crc32=crc32_of(payload),
    )


def _not_ours(batch: Batch) -> StoreDenied:
    return StoreDenied(f"the object at the key of {batch.name} holds lines that are not ours")
