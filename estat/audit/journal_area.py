"""The journals of a DLQ directory as the commands see them: read, never locked or changed.

    journal/<stream>/<seq>.journal

A living server appends to them meanwhile and removes what is stored. So a journal
may end in the middle of a group, and one that was found may be gone when it is read:
neither is damage. Its events wait for nobody but the server, which stores them, or
after a crash recovers them at its next start.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from estat.audit.spans import Span, union
from estat.disk import directory_lock, files, journal, journal_file, lock_table
from estat.disk.dlq import Entry
from estat.disk.journal_file import BadRange, Content
from estat.errors import DiskError
from estat.events import ids

AREA = journal.DIRECTORY

#: Why a journal is there, in the place of a DLQ file's reason.
REASON = "not stored yet"

_TRAILER = re.compile(rb"^#[^\n]*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ReadJournal:
    """What a journal held when it was read."""

    stream: str
    seq: int
    data: bytes
    content: Content

    @property
    def events(self) -> int:
        """The events that can be trusted."""
        return sum(group.events for group in self.content.groups)

    @property
    def spans(self) -> list[Span]:
        """Their numbers."""
        return union(
            Span(group.first, group.first + group.events - 1) for group in self.content.groups
        )

    @property
    def lines(self) -> bytes:
        """Their lines, as they will be stored."""
        return b"".join(self.data[group.start : group.end] for group in self.content.groups)

    @property
    def opened(self) -> float:
        """When its batch was opened, or else its stream (unix seconds)."""
        header = self.content.header
        return header.opened if header else ids.started_at(self.stream) or 0.0

    @property
    def name(self) -> str:
        """What its DLQ file would be called, without count and suffix."""
        header = self.content.header
        return header.name if header else f"{self.stream}_{self.seq:06d}"

    @property
    def damages(self) -> list[BadRange]:
        """The ranges that can't be trusted, but for a group that is still to be completed."""
        return [
            bad
            for bad in self.content.bad
            if bad.end < len(self.data) or not is_torn(self.data[bad.start :])
        ]

    @property
    def sealed_at(self) -> int | None:
        """The last number that its seal tells; None without a seal."""
        return self.content.last if self.content.sealed else None

    @property
    def facts(self) -> dict[str, Any]:
        """What is to be told of it to people."""
        header = self.content.header
        spans = self.spans
        return {
            "bucket": header and header.bucket,
            "key": header and header.key,
            "name": self.name,
            "stream": self.stream,
            "first": spans[0].first if spans else None,
            "last": spans[-1].last if spans else None,
            "events": self.events,
            "opened": self.opened,
            "sealed": self.content.sealed,
        }


def entries(root: str) -> Iterator[Entry]:
    """Read the journals of all streams, the oldest first. Raises DiskError.

    Their ``slot`` is the stream. How many events they hold is only known once they are read.
    """
    area = os.path.join(root, AREA)
    for stream in directory_lock.streams(area):
        started = ids.started_at(stream)
        if started is None:
            continue  # a stray, which the server leaves alone too
        for path in directory_lock.journals(os.path.join(area, stream)):
            yield Entry(stream, os.path.basename(path), path, 0, int(started))


def is_journal(entry: Entry) -> bool:
    """Tell whether a file is a journal."""
    return entry.area == AREA


def read(entry: Entry) -> ReadJournal | None:
    """Read a journal; None if it is gone. Raises DiskError."""
    try:
        data = files.read_whole(entry.path)
    except DiskError as exc:
        if exc.errno == errno.ENOENT:
            return None
        raise
    seq = int(entry.name.partition(".")[0])
    return ReadJournal(entry.slot, seq, data, journal_file.parse(data))


def is_owned(entry: Entry) -> bool | None:
    """Tell whether a living process holds a journal's stream; None where that can't be known."""
    return lock_table.is_held(os.path.join(os.path.dirname(entry.path), directory_lock.LOCK))


def problem(read: ReadJournal) -> str:
    """Return what is wrong with a journal; empty if nothing is."""
    damages = map(damage, read.damages)
    return "; ".join(filter(None, (read.content.not_ours, *damages)))


def is_torn(tail: bytes) -> bool:
    """Tell whether bytes may be a group whose write was cut off, or is going on.

    It has no trailer yet, so none of its events was acknowledged.
    """
    return not _TRAILER.search(tail)


def damage(bad: BadRange) -> str:
    """Return what is to be told of a damaged range."""
    events = f"{bad.events:,} event{'s' * (bad.events != 1)}"
    if bad.start == bad.end:
        return f"{events} {'is' if bad.events == 1 else 'are'} missing at byte {bad.start:,}"
    events = f", {events}" if bad.events else ""
    return f"damaged from byte {bad.start:,} to {bad.end:,}{events}"
