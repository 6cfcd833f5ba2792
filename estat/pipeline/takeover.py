"""Takes over what dead servers left on a shared volume (DLQ_SHARED=true).

A server is dead when its lock is free and, unless it ran under this very
kernel, its heartbeat has stood still for ``SILENCE_SECONDS`` by our clock: no
two hosts' clocks are compared. Its files move into this server's own directory
and into its accounting, as adopted.
"""

import logging
import os
import time

from estat.disk import files, journal
from estat.disk.directory_lock import DirectoryLock, journals, streams
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.disk.leader import Leader
from estat.disk.server_directory import HEARTBEAT, LEASE_SECONDS, boot_id
from estat.errors import DiskError
from estat.pipeline.admission import Accounts
from estat.pipeline.leader_loop import LeaderLoop
from estat.pipeline.recovery import Recovery
from estat.threads import Offload

log = logging.getLogger(__name__)

SILENCE_SECONDS = 3 * LEASE_SECONDS


class Takeover(LeaderLoop):
    """The loop that looks for dead servers beside ``root``, this server's own directory."""

    _pause_seconds = _pause_after_error_seconds = 5.0
    _error_event = "takeover_failed_unexpectedly"

    def __init__(
        self, root: str, threads: Offload, leader: Leader, recovery: Recovery, accounts: Accounts
    ) -> None:
        super().__init__(leader, accounts.admission)
        self._root = root
        self._servers, self._name = os.path.split(root)
        self._threads = threads
        self._recovery = recovery
        self._ledger = accounts.ledger
        self._heard: dict[str, tuple[int, float]] = {}  # last sign of life, and when

    def turn(self) -> float:
        """Take over every server that is dead by now."""
        self.look(time.monotonic())
        return self._pause_seconds

    def look(self, now: float) -> None:
        """Take over every server that is dead at ``now`` (``time.monotonic``). Raises DiskError."""
        for name in self._threads.run(streams, self._servers):
            if name == self._name or self._ending or not self._silent(name, now):
                continue
            try:
                self._adopt(name)
            except DiskError as exc:
                if self._is_own(exc.path):
                    raise
                # one bad directory is no failing disk, and must not hide the others
                self._seldom.warning("server_not_taken_over", name, error=str(exc))

    def _is_own(self, path: str) -> bool:
        return os.path.join(path, "").startswith(os.path.join(self._root, ""))

    def _adopt(self, name: str) -> None:
        lock = self._threads.run(DirectoryLock.adopt, self._servers, name)
        if lock:
            try:
                self._take(lock)
            finally:
                lock.close()

    def _silent(self, name: str, now: float) -> bool:
        boot, beat = self._threads.run(_sign_of_life, os.path.join(self._servers, name))
        if boot and boot == boot_id():
            return True  # the lock alone tells
        last, _ = self._heard.get(name, (None, now))
        if beat != last:
            self._heard[name] = (beat, now)
        return now - self._heard[name][1] >= SILENCE_SECONDS

    def _take(self, lock: DirectoryLock) -> None:
        path = lock.path
        # whoever wakes up there after all sees by this that it is not its own any more
        self._threads.run(files.remove, os.path.join(path, HEARTBEAT))
        self._recovery.recover_from(path, own=False)
        theirs = DeadLetterQueue(path)
        files_taken = 0
        whole = True
        for entry in self._threads.run(_entries, theirs):
            if self._ending:
                return
            try:
                claim = self._threads.run(theirs.claim, entry)
            except DiskError as exc:
                # one bad file must not hide the others either
                self._seldom.warning(
                    "server_not_taken_over", os.path.basename(path), error=str(exc)
                )
                claim = None
            if claim is None:
                whole = False
                continue
            with claim:
                target = os.path.join(self._root, entry.area, entry.slot)
                if os.path.lexists(os.path.join(target, entry.name)):
                    whole = False  # what is ours already goes first
                    continue
                self._threads.run(claim.move, target)
            self._ledger.adopt(entry.events, 1, claim.size_bytes)
            files_taken += 1
        if not whole or self._threads.run(_has_more, path):
            return  # what can't be read stays: another look may
        self._threads.run(lock.destroy)
        log.warning("server_taken_over", extra={"directory": path, "files": files_taken})


def _entries(dlq: DeadLetterQueue) -> list[Entry]:
    return list(dlq.every())


def _sign_of_life(path: str) -> tuple[str, int]:
    """Return the boot that a server ran under, and when it last touched its heartbeat."""
    heartbeat = os.path.join(path, HEARTBEAT)
    try:
        boot = files.read_whole(heartbeat).decode("ascii", "replace")
        return boot, os.lstat(heartbeat).st_mtime_ns
    except (DiskError, OSError):
        return "", 0


def _has_more(path: str) -> bool:
    """Tell whether anything is left that is not this server's to delete."""
    root = os.path.join(path, journal.DIRECTORY)
    return (
        any(journals(os.path.join(root, stream)) for stream in streams(root))
        or next(files.not_followed(path), None) is not None
    )
