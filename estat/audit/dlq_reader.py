"""The files of a DLQ directory as a command reads them: never locked, never changed.

    BatchFile      a batch behind a header, as the server writes it
    DamagedRange   bytes of a journal as they were, in quarantine: no header
    Journal        what is not stored yet: journal/<stream>/<seq>.journal

All answer the same questions, and read only what the answer needs. A server may store,
move or append to a file at any moment. So a file that was found may be gone when it is
read (``Gone``), and a journal may end in the middle of a group: neither is damage.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from estat.disk import directory_lock, dlq_file, files, journal, journal_file, locks
from estat.disk.dlq import QUARANTINE, DeadLetterQueue, Entry
from estat.disk.journal_file import SUFFIX, BadRange, Content
from estat.disk.server_directory import queues
from estat.errors import DiskError, EstatError, Unreadable
from estat.events import gzip, ids
from estat.events.batch import Batch
from estat.events.spans import Span, union

#: What a living server holds in its directory; the second one also in that of an earlier version.
_SERVER_LOCKS = (directory_lock.LOCK, "leader.lock")

#: Why a file is in quarantine that has no header.
DAMAGED_RANGE = "damaged range of a journal"


class Gone(EstatError):
    """A file is not there any more: it was stored or moved meanwhile."""


class _File:
    """What all three kinds have. Whatever reads raises Gone and DiskError."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    @cached_property
    def data(self) -> bytes:
        """Its bytes as they are.

        No lock is needed: a file is renamed into place whole and never written again.
        """
        with reading(self.entry):
            return files.read_whole(self.entry.path)

    @property
    def events(self) -> int:
        """Its events, of a DLQ file by its name."""
        return self.entry.events

    @property
    def problems(self) -> list[str]:
        """Which parts can't be trusted although the rest can, as far as that is known."""
        return []

    @property
    def problem(self) -> str:
        """The same as one text; empty if there are none."""
        return "; ".join(self.problems)


class BatchFile(_File):
    """A batch that the server wrote, or a stream's record, which has no events."""

    def facts(self) -> dict[str, Any]:
        """Return its header; the events are not read. Raises Unreadable."""
        with reading(self.entry):
            head = files.read_beginning(self.entry.path, dlq_file.HEADER_READ_BYTES)
        return dlq_file.read_header(head)

    def lines(self) -> Iterator[bytes]:
        """Yield its lines behind the header. Raises Unreadable where the damage begins."""
        lines = unzipped(self.data)
        next(lines, None)
        return lines

    def batch(self) -> Batch:
        """Return its batch, whatever it is called. Raises Unreadable, and NotOurs."""
        return dlq_file.unpack(self.data)

    def good_lines(self) -> bytes:
        """Return the lines of its events; a record has no events. Raises Unreadable."""
        batch = self.batch()
        return gunzip(batch.payload) if batch.events else b""


class DamagedRange(_File):
    """Bytes of a journal that could not be trusted."""

    def facts(self) -> dict[str, Any]:
        """Return why it is there, which is all that is known."""
        return {"reason": DAMAGED_RANGE}

    def lines(self) -> Iterator[bytes]:
        """Yield its lines, or what was to be some. Raises Unreadable where it can't be inflated."""
        return unzipped(self.data)

    def good_lines(self) -> bytes:
        """Return its bytes as they were. Raises Unreadable."""
        return gunzip(self.data)

    @property
    def is_harmless(self) -> bool:
        """Whether it is what an unfinished write has left, which nobody was promised.

        One at the beginning had the header at least, and nobody knows what else.
        """
        if self.events or "-bad0." in self.entry.name:
            return False
        try:
            return journal_file.is_torn(self.good_lines())
        except Unreadable:
            return False


class Journal(_File):
    """The journal of a batch. Its events wait for the server alone.

    It stores them, or after a crash recovers them at its next start.
    """

    @property
    def stream(self) -> str:
        """The stream that its directory names."""
        return directory_lock.stream_of(self.entry.slot)

    @cached_property
    def content(self) -> Content:
        """Its header, groups, and what is damaged."""
        return journal_file.parse(self.data)

    @property
    def events(self) -> int:
        """The events that can be trusted."""
        return sum(group.events for group in self.content.groups)

    @property
    def spans(self) -> list[Span]:
        """Their numbers."""
        return union(Span(group.first, group.following - 1) for group in self.content.groups)

    @property
    def opened(self) -> float:
        """When its batch was opened, or else its stream (unix seconds)."""
        header = self.content.header
        return header.opened if header else ids.started_at(self.stream) or 0.0

    @property
    def name(self) -> str:
        """What its DLQ file would be called, without count and suffix."""
        header = self.content.header
        return header.name if header else f"{self.stream}_{self.entry.name.removesuffix(SUFFIX)}"

    @property
    def damages(self) -> list[BadRange]:
        """The ranges that can't be trusted, without a group that is still being written."""
        return [
            bad
            for bad in self.content.bad
            if bad.end < len(self.data) or not journal_file.is_torn(self.data[bad.start :])
        ]

    @property
    def problems(self) -> list[str]:
        """Why the server does not read it, or which ranges are damaged."""
        if self.content.not_ours:
            return [str(self.content.not_ours)]  # of which no range is known
        return [damage(bad) for bad in self.damages]

    @property
    def is_owned(self) -> bool | None:
        """Whether its server lives, which holds the directory; None where that can't be known.

        The stream's own lock is not touched: a worker that tries it at that moment would take
        the stream for a living process's.
        """
        try:
            return is_owned(str(Path(self.entry.path).parents[2]))
        except OSError:
            return None

    def facts(self) -> dict[str, Any]:
        """Return what its header and its good groups tell."""
        header = self.content.header
        spans = self.spans
        return {
            "reason": "not stored yet",
            "owner_alive": self.is_owned,
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

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of its good groups, also of those behind a damaged one."""
        return iter(self.good_lines().splitlines(keepends=True))

    def good_lines(self) -> bytes:
        """Return the lines of its good groups, as they will be stored."""
        return b"".join(self.data[group.start : group.end] for group in self.content.groups)


DlqFile = BatchFile | DamagedRange | Journal


def found(entry: Entry) -> DlqFile:
    """Return a file as what it is, by its place and its name."""
    if is_journal(entry):
        return Journal(entry)
    name = ids.read_name(entry.name)
    if entry.area == QUARANTINE and name is not None and name.damaged:
        return DamagedRange(entry)
    return BatchFile(entry)


def is_journal(entry: Entry) -> bool:
    """Tell whether a file is a journal."""
    return entry.area == journal.DIRECTORY


def is_owned(root: str) -> bool:
    """Tell whether a server lives that has a directory, also while no worker leads.

    Raises OSError.
    """
    return any(locks.is_held(os.path.join(root, name)) for name in _SERVER_LOCKS)


def every(dlq_dir: str) -> Iterator[Entry]:
    """Read all files one by one, in the order in which events move: journals come first.

    They are those of all servers in DLQ_DIR, or of one server's directory.
    """
    yield from journals(dlq_dir)
    for root in queues(dlq_dir):
        yield from DeadLetterQueue(root).every()


def journals(dlq_dir: str) -> Iterator[Entry]:
    """Read the journals of all streams, each server's oldest first. Raises DiskError.

    Their ``slot`` is the stream's directory. How many events they hold is only known once they
    are read.
    """
    for root in queues(dlq_dir):
        area = os.path.join(root, journal.DIRECTORY)
        for name in directory_lock.streams(area):
            started = ids.started_at(directory_lock.stream_of(name))
            if started is None:
                continue  # a stray, which the server leaves alone too
            for path in directory_lock.journals(os.path.join(area, name)):
                yield Entry(name, os.path.basename(path), path, 0, int(started))


def damage(bad: BadRange) -> str:
    """Return a sentence about a damaged range."""
    events = f"{bad.events:,} event{'s' * (bad.events != 1)}"
    if bad.start == bad.end:
        return f"{events} {'is' if bad.events == 1 else 'are'} missing at byte {bad.start:,}"
    events = f", {events}" if bad.events else ""
    return f"damaged from byte {bad.start:,} to {bad.end:,}{events}"


def gunzip(data: bytes) -> bytes:
    """Inflate all of it. Raises Unreadable."""
    try:
        return gzip.gunzip(data)
    except ValueError as exc:
        raise Unreadable(str(exc)) from exc


@contextlib.contextmanager
def reading(entry: Entry) -> Iterator[None]:
    """Raise Gone for a file that is not there, DiskError for other errors of the disk."""
    try:
        with files.disk_errors("read", entry.path):
            yield
    except DiskError as exc:
        if exc.errno == errno.ENOENT:
            raise Gone(entry.path) from exc
        raise


def unzipped(data: bytes) -> Iterator[bytes]:
    """Yield the lines of gzip bytes, one at a time. Raises Unreadable where they are damaged."""
    try:
        yield from gzip.gunzip_lines(data)
    except ValueError as exc:
        raise Unreadable(f"damaged from here on: {exc}") from exc
