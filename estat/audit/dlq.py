"""Reads DLQ directories for the audit: which ids lie there, which files can't be read.

Nothing is changed, locked or waited for. A server may be at work: events move from
the journals to the other areas to the store, and are removed from one place when they
are in the next. They are read in this order, and the store last, so a file that vanishes is no
loss: its events are found again further on.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from estat.audit import dlq_reader, stored
from estat.audit.dlq_reader import DAMAGED_RANGE, DamagedRange, DlqFile, Gone, Journal
from estat.audit.stored import Content, Fault, Record
from estat.audit.target import Target, TargetError, is_same_bucket
from estat.disk import dlq_dir, dlq_file, files
from estat.disk.dlq import QUARANTINE, Entry
from estat.disk.server_directory import SERVERS, queues
from estat.errors import DiskError, Unreadable
from estat.events import gzip
from estat.events.batch import Batch
from estat.events.spans import Span


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What one file holds for the audited range: a stream's ids, or its record."""

    path: str
    stream: str
    spans: list[Span]
    record: Record | None
    #: Whether it goes to the audited bucket; a copy of a bucket has another name.
    same_bucket: bool


@dataclass(slots=True)
class Disk:
    """What DLQ directories hold for a target, or of some ``streams``; ``deep`` trusts no header."""

    paths: list[str]
    target: Target
    deep: bool
    streams: Collection[str] | None = None  # whose files are read, by their paths; None: all
    files: int = 0
    journals: int = 0
    left_out: int = 0  # files and journals for other ranges
    found: list[OnDisk] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: Events of unreadable files and ranges, by the streams that their names tell.
    quarantined: Counter[str] = field(default_factory=Counter)

    def look(self, tick: Callable[[int], None]) -> None:
        """Read every file, those of all servers.

        ``tick`` is told how many there are so far. Raises TargetError if a path is no DLQ
        directory, DiskError if a file can't be read.
        """
        for path in map(os.path.realpath, self.paths):
            with dlq_dir.acting_as_owner(path):
                self._look(path, tick)

    def _look(self, path: str, tick: Callable[[int], None]) -> None:
        self.faults += [
            Fault(stray, None, f"not followed: {why}") for stray, why in files.not_followed(path)
        ]
        seen: list[str] | None = None
        # a server that is taken over meanwhile may have moved to where was read already
        while seen != (found := _queues(path)):
            seen = found
            self._read(path, tick)

    def _read(self, path: str, tick: Callable[[int], None]) -> None:
        for entry in dlq_reader.every(path):
            is_wanted = self.streams is None or any(one in entry.path for one in self.streams)
            if is_wanted and not entry.name.endswith(files.TEMPORARY):
                with contextlib.suppress(Gone):  # its events are met further on
                    self._add(dlq_reader.found(entry))
                tick(self.files + self.journals)

    def _add(self, file: DlqFile) -> None:
        """Add what a file holds. Raises Gone and DiskError."""
        is_journal = isinstance(file, Journal)
        self.journals += is_journal
        self.files += not is_journal
        try:
            data = file.data
            if isinstance(file, Journal):
                self._add_journal(file)
            elif isinstance(file, DamagedRange):
                if not file.is_harmless:
                    raise Unreadable(DAMAGED_RANGE)
            elif file.entry.area == QUARANTINE:
                raise Unreadable("in quarantine")
            else:
                self._add_batch(dlq_file.read(file.entry.name, data), file.entry.path)
        except (Unreadable, DiskError) as exc:  # one bad file hides no other
            self._add_unreadable(file.entry, str(exc))

    def _add_journal(self, journal: Journal) -> None:
        header, path = journal.content.header, journal.entry.path
        if header and not header.key.startswith(self.target.keys):
            self.left_out += 1
            return
        if journal.content.not_ours:
            self.faults.append(Fault(path, None, str(journal.content.not_ours)))
        for bad in journal.damages:
            self.faults.append(Fault(path, None, dlq_reader.damage(bad)))
            self.quarantined[journal.stream] += bad.events
        if not journal.events:
            return
        spans = {journal.stream: journal.spans}
        if self.deep:
            spans = self._told(stored.from_lines(path, journal.lines()))
        # where its events will go is lost with its first line
        self._add_spans(path, spans, header.bucket if header else None)

    def _add_batch(self, batch: Batch, path: str) -> None:
        is_record = not batch.events and batch.key.startswith(self.target.records)
        if not (is_record or batch.key.startswith(self.target.keys)):
            self.left_out += 1
        elif is_record:
            self._add_record(batch, path)
        elif self.deep or batch.last - batch.first + 1 != batch.events:
            self._add_spans(path, self._told(stored.from_body(path, batch.payload)), batch.bucket)
        else:
            self._add_spans(path, {batch.stream: [Span(batch.first, batch.last)]}, batch.bucket)

    def _add_record(self, batch: Batch, path: str) -> None:
        try:
            record = stored.record(batch.key, gzip.gunzip(batch.payload))
        except ValueError as exc:
            self.faults.append(Fault(path, None, f"unreadable record: {exc}"))
        else:
            audited = self._is_audited(batch.bucket)
            self.found.append(OnDisk(path, record.stream, [], record, audited))

    def _told(self, content: Content) -> dict[str, list[Span]]:
        """Return the ids that lines tell; what can't be read of them is a fault."""
        self.faults += content.faults
        return content.spans

    def _add_spans(self, path: str, spans: dict[str, list[Span]], bucket: str | None) -> None:
        audited = bucket is not None and self._is_audited(bucket)
        self.found += [
            OnDisk(path, stream, found, None, audited) for stream, found in spans.items()
        ]

    def _is_audited(self, bucket: str) -> bool:
        return is_same_bucket(bucket, self.target.bucket)

    def _add_unreadable(self, entry: Entry, reason: str) -> None:
        """Count a file by its name, which is all that can be known of it."""
        told = f"{reason}: {entry.events:,} events by its name"
        self.faults.append(Fault(entry.path, None, told))
        stream = stored.stream_of(entry.name)
        if stream:
            self.quarantined[stream] += entry.events


def _queues(path: str) -> list[str]:
    """Return the servers' directories in a path. Raises TargetError if it is no DLQ directory."""
    found = queues(path)
    if not found and not os.path.isdir(os.path.join(path, SERVERS)):
        raise TargetError(f"--dlq {path}: no DLQ directory, it has no {SERVERS}/ in it")
    return found
