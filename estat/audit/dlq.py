"""Reads DLQ directories for the audit: which ids lie there, which files can't be read.

Nothing is changed, locked or waited for. A server may be at work: events move from
the journals to the other areas to the store, and are removed from one place when they
are in the next. Read in this order, the store last, a file that vanishes is no loss:
its events are met again further on.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from estat.audit import dlq_reader, stored
from estat.audit.dlq_reader import DAMAGED_RANGE, JOURNALS, BatchFile, DamagedRange, Gone, Journal
from estat.audit.spans import Span
from estat.audit.stored import Fault, Record
from estat.audit.target import Target, TargetError, is_same_bucket
from estat.disk import directory_lock, dlq_file, files
from estat.disk.dlq import EXPIRED, PENDING, QUARANTINE, Entry
from estat.disk.server_directory import SERVERS
from estat.errors import Unreadable
from estat.events import gzip
from estat.events.batch import Batch


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
    journals: int = 0
    left_out: int = 0  # files and journals for other ranges
    found: list[OnDisk] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: Events of unreadable files and ranges, by the streams that their names tell.
    quarantined: dict[str, int] = field(default_factory=dict)


def read(paths: list[str], target: Target, *, deep: bool, tick: Callable[[int], None]) -> Disk:
    """Read every file; of a shared directory, those of all its servers.

    Raises TargetError if one is no DLQ directory, DiskError if a file can't be read.
    """
    disk = Disk(paths)
    for path in paths:
        dlq_reader.trust_owner(path)
        disk.faults += [
            Fault(found, None, f"not followed: {why}") for found, why in files.not_followed(path)
        ]
        shared = os.path.join(path, SERVERS)
        queues = [os.path.join(shared, name) for name in directory_lock.streams(shared)]
        queues = list(filter(_is_queue, [*queues, path]))
        if not queues and not os.path.isdir(shared):
            raise TargetError(f"--dlq {path}: no DLQ directory, it has no {PENDING}/ in it")
        for queue in queues:
            _read(disk, queue, target, deep=deep, tick=tick)
    return disk


def _is_queue(path: str) -> bool:
    areas = (JOURNALS, PENDING, EXPIRED, QUARANTINE)
    return any(os.path.isdir(os.path.join(path, area)) for area in areas)


def _read(
    disk: Disk, path: str, target: Target, *, deep: bool, tick: Callable[[int], None]
) -> None:
    for entry in dlq_reader.every(path):
        if entry.name.endswith(files.TEMPORARY):
            continue
        file = dlq_reader.found(entry)
        with contextlib.suppress(Gone):  # its events are met further on
            if isinstance(file, Journal):
                _add_journal(disk, file, target, deep=deep)
            else:
                _add_file(disk, file, target, deep=deep)
        tick(disk.files + disk.journals)


def _add_file(disk: Disk, file: BatchFile | DamagedRange, target: Target, *, deep: bool) -> None:
    entry, data = file.entry, file.data
    disk.files += 1
    if isinstance(file, DamagedRange):
        if not file.is_harmless:
            _add_unreadable(disk, entry, DAMAGED_RANGE)
    elif entry.area == QUARANTINE:
        _add_unreadable(disk, entry, "in quarantine")
    else:
        try:
            batch = dlq_file.read(entry.name, data)
        except Unreadable as exc:
            _add_unreadable(disk, entry, str(exc))
        else:
            _add_batch(disk, batch, target, entry.path, deep=deep)


def _add_journal(disk: Disk, read: Journal, target: Target, *, deep: bool) -> None:
    header = read.content.header
    path = read.entry.path
    disk.journals += 1
    if header and not header.key.startswith(target.keys):
        disk.left_out += 1
        return
    # where its events will go is lost with its first line
    same = header is not None and is_same_bucket(header.bucket, target.bucket)
    if read.content.not_ours:
        disk.faults.append(Fault(path, None, read.content.not_ours))
    for bad in read.damages:
        disk.faults.append(Fault(path, None, dlq_reader.damage(bad)))
        _count_unreadable(disk, read.stream, bad.events)
    if not read.events:
        return
    spans = {read.stream: read.spans}
    if deep:
        told = stored.from_lines(path, read.good_lines())
        disk.faults += told.faults
        spans = told.spans
    for stream, found in spans.items():
        disk.found.append(OnDisk(stream, found, None, same))


def _add_batch(disk: Disk, batch: Batch, target: Target, path: str, *, deep: bool) -> None:
    is_record = not batch.events and batch.key.startswith(target.records)
    if not (is_record or batch.key.startswith(target.keys)):
        disk.left_out += 1
        return
    same = is_same_bucket(batch.bucket, target.bucket)
    if is_record:
        try:
            record = stored.record(batch.key, gzip.gunzip(batch.payload))
        except ValueError as exc:
            disk.faults.append(Fault(path, None, f"unreadable record: {exc}"))
        else:
            disk.found.append(OnDisk(record.stream, [], record, same))
    elif deep or batch.last - batch.first + 1 != batch.events:
        told = stored.from_body(path, batch.payload)
        disk.faults += told.faults
        for stream, spans in told.spans.items():
            disk.found.append(OnDisk(stream, spans, None, same))
    else:
        disk.found.append(OnDisk(batch.stream, [Span(batch.first, batch.last)], None, same))


def _add_unreadable(disk: Disk, entry: Entry, reason: str) -> None:
    """Count a file by its name, which is all that can be known of it."""
    disk.faults.append(Fault(entry.path, None, f"{reason}: {entry.events:,} events by its name"))
    stream = stored.stream_of(entry.name)
    if stream:
        _count_unreadable(disk, stream, entry.events)


def _count_unreadable(disk: Disk, stream: str, events: int) -> None:
    disk.quarantined[stream] = disk.quarantined.get(stream, 0) + events
