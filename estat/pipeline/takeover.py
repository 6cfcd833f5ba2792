"""Takes over what dead servers left in DLQ_DIR: a previous run here, or a server elsewhere.

Who is dead is ``server_directory``'s to say. Their slots and streams move into this server's
own directory, each by one rename, and from there on are this server's as all others: the
slots' files are counted as adopted, the journals when they are recovered. Slots go first, so
that a journal whose batch is in the DLQ already finds it there.

Earlier versions kept one server's files in DLQ_DIR itself. They are taken over when neither
leader.lock nor any stream is locked.
"""

import errno
import logging
import os
from typing import NamedTuple

from estat.accounting import metrics
from estat.accounting.shared_memory import SharedPage
from estat.disk import directory_lock, files, incoming, journal, locks, server_directory
from estat.disk.incoming import Incoming
from estat.disk.leader import Leader
from estat.disk.server_directory import ServerDirectory
from estat.errors import DiskError
from estat.events import ids
from estat.pipeline.admission import Accounts, Disk
from estat.pipeline.leader_loop import LeaderLoop

log = logging.getLogger(__name__)

_SHOWN_FILES = 20

#: What is said of a lock that is not there, or is no file: no server has it.
_NO_LOCK = (errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.EISDIR)


class _Taken(NamedTuple):
    """What has moved."""

    files: int = 0
    streams: int = 0


class Takeover(LeaderLoop):
    """The loop that looks for dead servers beside this server's own directory."""

    _error_event = "takeover_failed_unexpectedly"

    def __init__(self, disk: Disk, leader: Leader, page: SharedPage, accounts: Accounts) -> None:
        super().__init__(leader, accounts.admission)
        self._run = disk.run
        self._own = disk.dlq.root
        self._servers = os.path.dirname(self._own)
        self._dlq_dir = os.path.dirname(self._servers)
        self._incoming = Incoming(disk.dlq)
        self._page = page
        self._access = disk.dlq.access
        self._counts, self._ledger, _ = accounts
        #: Directories in which only such is left as no rule knows: it is neither sent nor deleted.
        self._left: set[str] = set()
        #: The bytes that each server had that lives, by its lock.
        self._others: dict[str, int] = {}

    def turn(self) -> float:
        """Take over every server that is dead by now. Raises DiskError of the own directory."""
        self._count_slots()
        paths = self._run(_others, self._servers, self._own)
        self._others = {path: self._others[path] for path in paths if path in self._others}
        for path in paths:
            if self._ending:
                break
            if path not in self._left:
                self._look_at(path)
        self._count_others()
        if not self._ending and self._run(server_directory.has_areas, self._dlq_dir):
            self._look_at_flat()
        return self._pause_seconds

    def _look_at(self, path: str) -> None:
        """Take a server over if it is dead; note the bytes that it has if it lives."""
        try:
            if self._run(_is_left_over, path):
                self._leave(path, self._run(server_directory.strays, path))
                return
            directory = self._run(ServerDirectory.take, path)
            if directory is None:
                self._others[path] = self._run(server_directory.sign_of, path).size_bytes
                return
            try:
                # before it is counted as this server's: a DLQ that seems full drops what it has
                self._others.pop(path, None)
                self._count_others()
                taken = self._take_all(directory.path)
                if not self._ending:
                    self._leave(directory.path, self._run(directory.discard))
                self._log(path, taken)
            finally:
                directory.close()
        except DiskError as exc:
            self._not_taken_over(path, exc)

    def _count_others(self) -> None:
        self._counts.set(metrics.OTHERS_BYTES, sum(self._others.values()))

    def _look_at_flat(self) -> None:
        """Take over what a server of an earlier version left, if none lives there."""
        try:
            held = self._run(_lock_flat, self._dlq_dir)
            if held is None:
                return
            try:
                taken = self._take_all(self._dlq_dir)
                if not self._ending:
                    self._run(server_directory.clear, self._dlq_dir)
                self._log(self._dlq_dir, taken)
            finally:
                for descriptor in held:
                    os.close(descriptor)
        except DiskError as exc:
            self._not_taken_over(self._dlq_dir, exc)

    def _take_all(self, root: str) -> _Taken:
        """Move all slots and streams of a dead server here."""
        file_count = streams = 0
        for area, path in self._run(incoming.slots_in, root):
            if self._ending:
                break
            number = 1 + max(self._last_counted(), self._run(self._incoming.last))
            try:
                self._run(self._incoming.move, area, path, number)
            except DiskError as exc:
                self._not_taken_over(path, exc)  # and it hides nothing behind it
                continue
            file_count += self._count_slots()
        theirs = os.path.join(root, journal.DIRECTORY)
        ours = os.path.join(self._own, journal.DIRECTORY)
        for name in self._run(_streams, root):
            if self._ending:
                break
            self._run(directory_lock.hand_on, theirs, name, ours, self._access)
            streams += 1
        return _Taken(file_count, streams)

    def _count_slots(self) -> int:
        """Count each slot that came here and is not counted yet, show it, and return its files."""
        file_count = 0
        for slot in self._run(self._incoming.waiting):
            if slot.number > self._last_counted():
                found = self._run(self._incoming.count, slot)
                self._ledger.adopt_slot(found.events, found.files, found.size_bytes, slot.number)
                file_count += found.files
            self._run(self._incoming.show, slot)
        return file_count

    def _last_counted(self) -> int:
        return max((row.cells[metrics.LAST_SLOT] for row in self._page.used_rows()), default=0)

    def _leave(self, path: str, left: list[str]) -> None:
        if left:
            self._left.add(path)
            facts = {"directory": path, "files": left[:_SHOWN_FILES]}
            log.warning("files_left_alone", extra=facts)

    def _log(self, path: str, taken: _Taken) -> None:
        if any(taken):
            log.warning("server_taken_over", extra={"directory": path, **taken._asdict()})

    def _not_taken_over(self, path: str, error: DiskError) -> None:
        if os.path.join(error.path, "").startswith(os.path.join(self._own, "")):
            raise error
        # one bad directory is no failing disk, and must not hide the others
        self._seldom.warning("server_not_taken_over", path, error=str(error))


def _others(servers: str, own: str) -> list[str]:
    paths = [os.path.join(servers, name) for name in directory_lock.streams(servers)]
    return [path for path in paths if path != own]


def _streams(root: str) -> list[str]:
    """Return the names of a server's streams; other directories are not touched."""
    with files.disk_errors("scan", root):
        if journal.DIRECTORY not in files.directory_names(root):
            return []  # a link, say
    names = directory_lock.streams(os.path.join(root, journal.DIRECTORY))
    return [n for n in names if ids.started_at(directory_lock.stream_of(n)) is not None]


def _is_left_over(path: str) -> bool:
    """Tell whether only such is left of a server as no rule knows."""
    return (
        "." in os.path.basename(path)  # it was taken over before
        and not incoming.slots_in(path)
        and not _streams(path)
        and bool(server_directory.strays(path))
    )


def _lock_flat(dlq_dir: str) -> list[int] | None:
    """Lock all that a server of an earlier version locks; None if one lives."""
    streams = os.path.join(dlq_dir, journal.DIRECTORY)
    paths = [os.path.join(streams, name, directory_lock.LOCK) for name in _streams(dlq_dir)]
    held: list[int] = []
    with files.disk_errors("lock", dlq_dir):
        for path in (os.path.join(dlq_dir, "leader.lock"), *paths):
            try:
                held.append(locks.lock(path))
            except OSError as exc:
                if exc.errno in _NO_LOCK:
                    continue
                for descriptor in held:
                    os.close(descriptor)
                if isinstance(exc, BlockingIOError):
                    return None
                raise
    return held
