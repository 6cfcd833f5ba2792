"""Takes over what dead servers left in DLQ_DIR: a previous run here, or a server elsewhere.

Who is dead is ``server_directory``'s to say. Their slots and streams move into this server's
own directory, each by one rename, and from there on are this server's as all others: a slot's
files are counted as adopted right after the rename, the journals when they are recovered. A
worker that is killed between rename and count leaves files that nobody counts, and the next
leader's ``Reconciliation`` finds them.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator

from estat.accounting import metrics
from estat.disk import directory_lock, files, hour_files, journal, server_directory
from estat.disk.dlq import DeadLetterQueue, Totals
from estat.disk.leader import Leader
from estat.disk.server_directory import ServerDirectory
from estat.errors import DiskError
from estat.pipeline.admission import Accounts, Disk
from estat.pipeline.leader_loop import LeaderLoop

log = logging.getLogger(__name__)

_SHOWN_FILES = 20

#: How often what is passed over in DLQ_DIR is counted: that looks at each name in it.
_COUNT_SECONDS = 3600


class Takeover(LeaderLoop):
    """The loop that looks for dead servers beside this server's own directory."""

    _error_event = "takeover_failed_unexpectedly"

    def __init__(self, disk: Disk, leader: Leader, accounts: Accounts) -> None:
        super().__init__(leader, accounts.admission)
        self._run = disk.run
        self._own = disk.dlq.root
        self._servers = os.path.dirname(self._own)
        self._access = disk.dlq.access
        self._counts, self._ledger, *_ = accounts
        #: Directories whose unknown files are logged already.
        self._left: set[str] = set()
        #: The bytes of all other servers, as their locks tell, by their directories.
        self._others: dict[str, int] = {}
        self._count_due = 0.0

    def turn(self) -> float:
        """Take over every server that is dead by now. Raises DiskError of the own directory."""
        dlq_dir = os.path.dirname(self._servers)
        with self._hiding_no_other(dlq_dir):
            self._run(server_directory.convert_flat, dlq_dir)
        # also those that have no name yet: who makes them does so in less than a minute, or is dead
        with files.disk_errors("scan", self._servers):
            names = self._run(files.directory_names, self._servers)
        paths = {os.path.join(self._servers, name) for name in names} - {self._own}
        self._others = {p: self._run(server_directory.sign_of, p).size_bytes for p in paths}
        self._count_others()
        for path in sorted(self._others):
            if self._ending:
                break
            with self._hiding_no_other(path):
                self._look_at(path)
        if time.monotonic() >= self._count_due:
            self._count_passed_over(dlq_dir)
        return self._pause_seconds

    def _look_at(self, path: str) -> None:
        """Take a server over if it is dead."""
        if directory_lock.is_taken_over(os.path.basename(path)):
            moving, strays = self._run(server_directory.contents, path)
            if strays and not moving:
                self._leave(path, strays)
                return
        directory = self._run(ServerDirectory.take, path)
        if directory is None:
            return
        try:
            # before it is counted as this server's: a DLQ that seems full drops what it has
            del self._others[path]
            self._count_others()
            self._move_all(path, directory.path)
            if not self._ending:
                self._run(directory.release)
        finally:
            directory.close()

    def _move_all(self, path: str, root: str) -> None:
        """Move all slots and streams here of the dead server that was at ``path``."""
        dead = DeadLetterQueue(root)
        file_count = streams = 0
        for area, name in self._run(server_directory.contents, root).moving:
            if self._ending:
                break
            source, target = os.path.join(root, area, name), os.path.join(self._own, area)
            in_dlq = area not in (journal.DIRECTORY, hour_files.DIRECTORY)
            with self._hiding_no_other(source):
                found = self._run(dead.count, area, name) if in_dlq else Totals(0, 0, 0)
                self._run(directory_lock.hand_on, source.rstrip("/"), target, self._access)
                self._ledger.adopt(found.events, found.files, found.size_bytes)
                file_count += found.files
                streams += area == journal.DIRECTORY
        if file_count or streams:
            facts = {"directory": path, "files": file_count, "streams": streams}
            log.warning("server_taken_over", extra=facts)

    def _count_others(self) -> None:
        self._counts.set(metrics.OTHERS_BYTES, sum(self._others.values()))

    def _count_passed_over(self, dlq_dir: str) -> None:
        found = self._run(server_directory.passed_over, dlq_dir).values()
        for reason in ("not_followed", "unknown"):
            number = sum(why == reason for why, _ in found)
            self._counts.set(metrics.FILES_ASIDE[reason], number)
        self._count_due = time.monotonic() + _COUNT_SECONDS

    def _leave(self, path: str, strays: list[str]) -> None:
        if path not in self._left:
            self._left.add(path)
            facts = {"directory": path, "files": strays[:_SHOWN_FILES]}
            log.warning("files_left_alone", extra=facts)

    @contextlib.contextmanager
    def _hiding_no_other(self, path: str) -> Iterator[None]:
        """Tell of a bad directory, which is no failing disk. Raises DiskError of the own one."""
        try:
            yield
        except DiskError as exc:
            if os.path.join(exc.path, "").startswith(os.path.join(self._own, "")):
                raise
            self._seldom.warning("server_not_taken_over", path, error=str(exc))
