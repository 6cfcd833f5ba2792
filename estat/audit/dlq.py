"""Reads DLQ directories for the audit: which ids lie there, which files can't be read.

Nothing is changed, locked or waited for. A server may be at work: events move from
the journals to the other areas to the store, and are removed from one place when they
are in the next. They are read in this order, and the store last, so a file that vanishes is no
loss: its events are found again further on.
"""

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass, field

from estat.audit import dlq_reader, stored
from estat.audit.dlq_reader import DAMAGED_RANGE, DamagedRange, DlqFile, Gone, Journal
from estat.audit.reader import Reader
from estat.audit.stored import Content, Fault
from estat.audit.target import Target, TargetError, is_same_bucket
from estat.disk import dlq_dir, dlq_file, files
from estat.disk.dlq import QUARANTINE
from estat.disk.server_directory import SERVERS, queues
from estat.errors import DiskError, Unreadable
from estat.events import gzip
from estat.events.batch import Batch
from estat.events.spans import Span


@dataclass(slots=True)
class Disk:
    """What DLQ directories hold for a target, or of some ``streams``.

    ``reader`` tells whether headers are trusted, and is told how many files there are.
    """

    paths: list[str]
    target: Target
    reader: Reader
    streams: Collection[str] | None = None  # whose files are read, by their paths; None: all
    files: int = 0
    journals: int = 0
    left_out: int = 0  # files and journals for other ranges
    found: list[Content] = field(default_factory=list)

    def look(self) -> None:
        """Read every file, those of all servers.

        Raises TargetError if a path is no DLQ directory, DiskError if a file can't be read.
        """
        for path in map(os.path.realpath, self.paths):
            with dlq_dir.acting_as_owner(path):
                self._look(path)

    def _look(self, path: str) -> None:
        for stray, why in files.not_followed(path):
            self.found.append(stored.damaged(stray, f"not followed: {why}"))
        seen: list[str] | None = None
        # a server that is taken over meanwhile may have moved to where was read already
        while seen != (found := _queues(path)):
            seen = found
            for entry in dlq_reader.every(path):
                is_wanted = self.streams is None or any(one in entry.path for one in self.streams)
                if is_wanted and not entry.name.endswith(files.TEMPORARY):
                    with contextlib.suppress(Gone):  # its events are met further on
                        self._add(dlq_reader.found(entry))
                    self.reader.listed(self.files + self.journals, "files on disk")

    def _add(self, file: DlqFile) -> None:
        """Add what a file holds. Raises Gone."""
        is_journal = isinstance(file, Journal)
        self.journals += is_journal
        self.files += not is_journal
        try:
            content = self._content(file)
        except (Unreadable, DiskError) as exc:  # one bad file hides no other
            # its name is all that can be known of it
            entry, stream = file.entry, stored.stream_of(file.entry.name)
            content = stored.damaged(entry.path, f"{exc}: {entry.events:,} events by its name")
            content.lost = {stream: entry.events} if stream else {}
        if content:
            self.found.append(content)
        else:
            self.left_out += 1

    def _content(self, file: DlqFile) -> Content | None:
        """Return what a file holds; None if it is for another range.

        Raises Gone, Unreadable and DiskError.
        """
        data, entry = file.data, file.entry
        if isinstance(file, Journal):
            return self._of_journal(file)
        if isinstance(file, DamagedRange):
            if not file.is_harmless:
                raise Unreadable(DAMAGED_RANGE)
            return Content(entry.path)
        if entry.area == QUARANTINE:
            raise Unreadable("in quarantine")
        return self._of_batch(dlq_file.read(entry.name, data), entry.path)

    def _of_journal(self, journal: Journal) -> Content | None:
        header, path = journal.content.header, journal.entry.path
        if header and not header.key.startswith(self.target.keys):
            return None
        if self.reader.deep:
            content = stored.from_lines(path, journal.lines())
        else:
            content = Content(path, spans={journal.stream: journal.spans} if journal.events else {})
        # where its events will go is lost with its first line
        content.audited = header is not None and is_same_bucket(header.bucket, self.target.bucket)
        content.faults += [Fault(path, None, problem) for problem in journal.problems]
        content.lost = {journal.stream: sum(bad.events for bad in journal.damages)}
        return content

    def _of_batch(self, batch: Batch, path: str) -> Content | None:
        if not batch.events and batch.key.startswith(self.target.records):
            try:
                record = stored.record(batch.key, gzip.gunzip(batch.payload))
            except ValueError as exc:
                return stored.damaged(path, f"unreadable record: {exc}")
            content = Content(path, spans={record.stream: []}, record=record)
        elif not batch.key.startswith(self.target.keys):
            return None
        elif self.reader.deep or batch.last - batch.first + 1 != batch.events:
            content = stored.from_body(path, batch.payload)
        else:
            content = Content(path, spans={batch.stream: [Span(batch.first, batch.last)]})
        content.audited = is_same_bucket(batch.bucket, self.target.bucket)
        return content


def _queues(path: str) -> list[str]:
    """Return the servers' directories in a path. Raises TargetError if it is no DLQ directory."""
    found = queues(path)
    if not found and not os.path.isdir(os.path.join(path, SERVERS)):
        raise TargetError(f"--dlq {path}: no DLQ directory, it has no {SERVERS}/ in it")
    return found
