"""Reads DLQ directories for the audit: which ids lie there, which files can't be read.

Nothing is changed, locked or waited for. A server may be at work: a file that
vanishes was stored or moved on, and whoever reads the store afterwards, or the
areas in the order in which files move, meets its events again.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from estat import audit_content, dlq_file, encoder, files
from estat.audit import Span
from estat.audit_content import Fault, Record
from estat.batch import Batch
from estat.cli.audit_target import Target, TargetError
from estat.cli.dlq_files import content
from estat.dlq import EXPIRED, PENDING, QUARANTINE, DeadLetterQueue
from estat.errors import Unreadable

_JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What one file holds for the audited range: a stream's ids, or its record."""

    stream: str
    spans: list[Span]
    record: Record | None
    #: Whether it goes to the audited bucket; a copy of a bucket has another name.
    same_bucket: bool


@dataclass(slots=True)
class Disk:
    """What the DLQ directories hold."""

    paths: list[str]
    files: int = 0
    left_out: int = 0  # files for other ranges
    journals: int = 0  # not read
    found: list[OnDisk] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: Events of unreadable files, by the streams that their names tell.
    quarantined: dict[str, int] = field(default_factory=dict)


def read(paths: list[str], target: Target, *, deep: bool, tick: Callable[[int], None]) -> Disk:
    """Read every file. Raises TargetError if one is no DLQ directory, DiskError if one fails."""
    disk = Disk(paths)
    for path in paths:
        _read(disk, path, target, deep=deep, tick=tick)
    return disk


def _read(
    disk: Disk, path: str, target: Target, *, deep: bool, tick: Callable[[int], None]
) -> None:
    areas = (PENDING, EXPIRED, QUARANTINE, _JOURNAL)
    if not any(os.path.isdir(os.path.join(path, area)) for area in areas):
        raise TargetError(f"--dlq {path}: no DLQ directory, it has no {PENDING}/ in it")
    disk.journals += sum(1 for _ in _journals(path))
    for entry in DeadLetterQueue(path).every():
        if entry.name.endswith(files.TEMPORARY):
            continue
        disk.files += 1
        tick(disk.files)
        if entry.area == QUARANTINE:
            _add_unreadable(disk, entry.path, entry.name, "in quarantine")
            continue
        data = content(entry)
        if data is None:
            disk.files -= 1  # gone meanwhile
            continue
        try:
            batch = dlq_file.unpack(data)
        except Unreadable as exc:
            _add_unreadable(disk, entry.path, entry.name, str(exc))
        else:
            _add(disk, batch, target, entry.path, deep=deep)


def _add(disk: Disk, batch: Batch, target: Target, path: str, *, deep: bool) -> None:
    is_record = not batch.events and batch.key.startswith(target.records)
    if not (is_record or batch.key.startswith(target.keys)):
        disk.left_out += 1
        return
    same = batch.bucket == target.bucket
    if is_record:
        try:
            record = audit_content.record(batch.key, encoder.gunzip(batch.payload))
        except ValueError as exc:
            disk.faults.append(Fault(path, None, f"unreadable record: {exc}"))
        else:
            disk.found.append(OnDisk(record.stream, [], record, same))
    elif deep or batch.last - batch.first + 1 != batch.events:
        told = audit_content.from_body(path, batch.payload)
        disk.faults += told.faults
        for stream, spans in told.spans.items():
            disk.found.append(OnDisk(stream, spans, None, same))
    else:
        disk.found.append(OnDisk(batch.stream, [Span(batch.first, batch.last)], None, same))


def _add_unreadable(disk: Disk, path: str, name: str, reason: str) -> None:
    """Count a file by its name, which is all that can be known of it."""
    events = dlq_file.parse_name(name).events
    disk.faults.append(Fault(path, None, f"{reason}: {events:,} events by its name"))
    stream = audit_content.stream_of(name)
    if stream:
        disk.quarantined[stream] = disk.quarantined.get(stream, 0) + events


def _journals(path: str) -> Iterator[str]:
    root = os.path.join(path, _JOURNAL)
    with contextlib.suppress(FileNotFoundError), files.disk_errors("walk", root):
        for directory, _, names in os.walk(root):
            for name in names:
                if name.endswith(".journal"):
                    yield os.path.join(directory, name)
