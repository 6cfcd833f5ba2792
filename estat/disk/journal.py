"""Keeps accepted events on disk from their acknowledgement until they are stored.

One journal holds the lines of one batch. A group of requests is appended with
one write, and acknowledged when ``append`` has returned: it then survives the
process (DURABILITY=journal), or the power (``fsync``, which syncs it first).

An append that fails ends its journal: the group is cut off again, so that what
was refused leaves nothing behind, and the file is never written or synced
after that, for a failed sync says nothing about a later one. Its batch goes on
to the store with what was acknowledged.

A journal is lost when somebody deletes its stream's lock, alone or with the directory: a
reader could not find it any more, or would take it for that of a dead process. Its batch
goes on to the store too.
"""

import contextlib
import errno
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.config.durability import Durability
from estat.disk import files, journal_file
from estat.disk.directory_lock import DirectoryLock
from estat.disk.journal_file import Header
from estat.errors import DiskError
from estat.log import Seldom
from estat.threads import Offload, SerialExecutor

log = logging.getLogger(__name__)

DIRECTORY = "journal"

#: A disk that takes longer hangs: a slow one takes a tenth of it.
_STALLED_SECONDS = 2.0


class Journal:
    """One batch's file. It belongs to the process that holds its stream's lock."""

    def __init__(self, path: str, header: Header, *, synced: bool) -> None:
        self.header = header
        self.size_bytes = 0  # acknowledged
        #: Whether a group that was refused may come back after a crash: it could not be cut off.
        self.in_doubt = False
        #: Whether it takes no more groups: its stream's lock is gone, and perhaps its file.
        self.lost = False
        #: Whether the disk has refused to read or delete it before: it may be this file alone.
        self.refused = False
        self._path = path
        self._synced = synced
        self._descriptor = -1

    def create(self) -> None:
        """Make the file with its first line. Blocks; raises DiskError."""
        first_line = journal_file.pack_header(self.header)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        with files.disk_errors("create", self._path):
            self._descriptor = files.open_file(self._path, flags)
            try:
                self._write(first_line)
                if self._synced:
                    os.fsync(self._descriptor)
                    files.sync_directory(os.path.dirname(self._path))
            except OSError:
                self._close()
                with contextlib.suppress(OSError):  # without a group it is worth nothing
                    os.unlink(self._path)
                raise
        self.size_bytes = len(first_line)

    def append(self, lines: list[bytes], may_write: Callable[[], object] = lambda: None) -> None:
        """Append a group. Raises DiskError; the group is then gone, unless ``in_doubt``.

        ``may_write`` is asked before and afterwards: a process that stood still meanwhile may
        have lost the directory, and whoever has it now may have read the group.
        """
        if self.lost:
            raise DiskError("append", self._path, FileNotFoundError(errno.ENOENT, "lock deleted"))
        data = journal_file.pack_group(lines)
        may_write()
        written = False
        try:
            with files.disk_errors("append", self._path):
                self._write(data)
                if self._synced:
                    os.fdatasync(self._descriptor)
            written = True
            may_write()
        except DiskError:
            self.in_doubt = written
            try:
                os.ftruncate(self._descriptor, self.size_bytes)
            except OSError:
                self.in_doubt = True
            self._close()
            raise
        self.size_bytes += len(data)

    def seal(self, events: int) -> None:
        """Note that the batch is complete. Blocks; raises DiskError."""
        if self._descriptor < 0:
            return  # it ended with a failed append
        try:
            line = journal_file.pack_seal(self.header, events)
            with files.disk_errors("seal", self._path):
                self._write(line)
            self.size_bytes += len(line)
        except DiskError:
            with contextlib.suppress(OSError):  # half a line is a bad range, and no more
                os.ftruncate(self._descriptor, self.size_bytes)
            raise
        finally:
            self._close()

    def remove(self) -> None:
        """Delete the file. Blocks; raises DiskError."""
        self._close()
        files.remove(self._path)

    def cut(self) -> None:
        """Try again to cut off what was refused. Blocks; raises DiskError."""
        with files.disk_errors("truncate", self._path), contextlib.suppress(FileNotFoundError):
            os.truncate(self._path, self.size_bytes)
        self.in_doubt = False

    def content(self) -> bytes:
        """Return the file's bytes. Blocks; raises DiskError."""
        return files.read_whole(self._path)[: self.size_bytes]

    def _write(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        if written < len(data):
            os.write(self._descriptor, data[written : written + 1])  # raises why
            raise OSError(errno.ENOSPC, "short write")

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # its writes have been answered for one by one
                os.close(descriptor)


class Journals:
    """The journals of one process: its streams' directories, locked, and what lies in them."""

    def __init__(
        self,
        dlq_dir: str,
        durability: Durability,
        counts: Metrics,
        may_write: Callable[[], object] = lambda: None,
    ) -> None:
        #: Called when the open batch should be sealed at once, for its journal is lost.
        self.on_lost: Callable[[], object] = lambda: None
        self._root = os.path.join(dlq_dir, DIRECTORY)
        self._access = files.PRIVATE._replace(top=dlq_dir)
        #: Raises DiskError if this process may not write to the directory any more.
        self.may_write = may_write
        self._synced = durability.synced
        self._counts = counts
        self._waiting_since: float | None = None
        self._appender = SerialExecutor()  # one group after the other
        self._housekeeping = Offload(1)
        self._locks: dict[str, DirectoryLock] = {}
        self._held: Counter[str] = Counter()  # journals by stream
        self._newest = ""  # the stream that is in use
        self._last: Journal | None = None  # opened last; no other one takes groups
        self._doubtful: list[Journal] = []
        self._finished: deque[Journal] = deque()  # to be deleted
        self._seldom = Seldom(log)

    def open(self, header: Header, seq: int) -> Journal:
        """Make the journal of a new batch. Raises DiskError."""
        path = os.path.join(self._root, header.stream, f"{seq:06d}{journal_file.SUFFIX}")
        journal = Journal(path, header, synced=self._synced)
        # first of all, for mend() may run meanwhile
        self._newest = header.stream
        self._held[header.stream] += 1
        try:
            with self._waiting():
                self.may_write()
                self._appender.run(self._create, journal)
        except DiskError:
            self._held[header.stream] -= 1
            raise
        self._last = journal
        self._grow(journal.size_bytes)
        return journal

    def append(self, journal: Journal, lines: list[bytes]) -> None:
        """Keep a group of events. Raises DiskError: they are not kept, and the journal has ended.

        Whether numbers may be given again depends on ``trusted``.
        """
        started = time.perf_counter()
        before = journal.size_bytes
        try:
            if self._synced:
                with self._waiting():
                    self._appender.run(journal.append, lines, self.may_write)
            else:
                # microseconds into the page cache; a hop to a thread is 40
                journal.append(lines, self.may_write)
        except DiskError:
            if journal.in_doubt:
                self._doubtful.append(journal)
                self._counts.count(metrics.IN_DOUBT, len(lines))
            raise
        finally:
            self._counts.observe(metrics.COMMIT_SECONDS, time.perf_counter() - started)
            self._grow(journal.size_bytes - before)

    @property
    def stalled(self) -> bool:
        """Whether the disk lets a group wait for so long that no other should join it."""
        since = self._waiting_since
        return since is not None and time.monotonic() - since > _STALLED_SECONDS

    def trusted(self, journal: Journal) -> bool:
        """Tell whether a failed group is surely gone, so that its numbers may be used again.

        A cut that was not synced may be undone by a power failure. A lost journal's stream may
        have been taken over: a new one keeps out of the way.
        """
        return not (journal.in_doubt or journal.lost or self._synced)

    def seal(self, journal: Journal, events: int) -> None:
        """Note in a journal that its batch is complete. Raises DiskError."""
        before = journal.size_bytes
        self._takes_no_more(journal)
        self._housekeeping.run(journal.seal, events)
        self._grow(journal.size_bytes - before)

    def finish(self, journal: Journal) -> None:
        """Delete a journal whose batch is stored or in the DLQ, now or as soon as possible."""
        self._takes_no_more(journal)
        self._finished.append(journal)
        with contextlib.suppress(DiskError):  # mend() tries again, and tells
            self._delete()

    def mend(self) -> None:
        """Try again what the disk refused before, and tidy up after it. Raises DiskError.

        A journal that can't be deleted is an error once: whether the disk works is then up to
        the probe, and one bad file must not close admission again and again.
        """
        self._look_for_lock()
        try:
            self._delete()
        except DiskError as exc:
            self._seldom.warning("journal_not_deleted", "undeletable", error=str(exc))
            journal = self._finished[-1]
            before, journal.refused = journal.refused, True
            if not before:
                raise
        # a name says nothing: the clock may have been set back
        ended = [s for s in list(self._locks) if s != self._newest and not self._held[s]]
        for stream in ended:
            # it ended with a failed append, and nothing of it is left
            self._housekeeping.run(_give_up, self._locks.pop(stream))
        for journal in list(self._doubtful):
            self._housekeeping.run(journal.cut)
            with contextlib.suppress(ValueError):  # deleted meanwhile
                self._doubtful.remove(journal)

    def close(self) -> None:
        """Release the streams; the next run recovers what journals are left in them."""
        for lock in self._locks.values():
            try:
                self._housekeeping.run(_give_up, lock)
            except DiskError as exc:
                log.warning("journal_directory_left", extra={"error": str(exc)})
        self._locks.clear()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None

    def _create(self, journal: Journal) -> None:
        stream = journal.header.stream
        lock = self._locks.get(stream)
        if lock is None:
            self._locks[stream] = DirectoryLock.create(self._root, stream, self._access)
        elif not lock.held:
            # whoever has taken the stream over has it until its directory is empty
            again = DirectoryLock.adopt(self._root, stream) or DirectoryLock.create(
                self._root, stream, self._access
            )
            self._locks[stream] = again
            lock.close()
        journal.create()

    def _takes_no_more(self, journal: Journal) -> None:
        if journal is self._last:
            self._last = None

    def _look_for_lock(self) -> None:
        """Find out whether the open journal's stream still is this process's."""
        journal = self._last
        lock = self._locks.get(journal.header.stream) if journal else None
        if journal is None or journal.lost or lock is None:
            return
        if self._waiting_since is not None:
            return  # behind a disk that hangs whoever renews the lease would wait, too
        # in the thread that may replace it
        if self._appender.run(lambda: lock.held) or journal is not self._last:
            return
        journal.lost = True
        log.error("journal_lost", extra={"stream": journal.header.stream, "directory": lock.path})
        self.on_lost()

    def _delete(self) -> None:
        while self._finished:
            journal = self._finished.popleft()
            try:
                with files.disk_errors("unlink", self._root):
                    # a file that is away with the server's directory is not gone: it may come back
                    self._housekeeping.run(os.stat, self._access.top)
                self._housekeeping.run(journal.remove)
            except DiskError:
                self._finished.append(journal)
                raise
            if journal in self._doubtful:
                self._doubtful.remove(journal)
            self._held[journal.header.stream] -= 1
            self._grow(-journal.size_bytes)

    def _grow(self, change_bytes: int) -> None:
        self._counts.count(metrics.JOURNAL_BYTES, change_bytes)


def _give_up(lock: DirectoryLock) -> None:
    """Release a stream's lock. Blocks; raises DiskError."""
    if lock.held:
        lock.release()
    else:
        lock.close()  # a directory of this name is another's
