"""One worker's proof that its server still has its directory.

Once a second the worker writes to the directory's lock and looks whether the lock is still in
its place. If it is not, DLQ_DIR was moved away or mounted over, somebody deleted the lock, or
another server has taken the directory over. Then nothing is accepted and nothing is written. The
worker goes on if it finds everything as it was within ``LEASE_SECONDS``; else it ends, and the
arbiter makes a new directory before it forks the next one.

A worker whose server has no directory yet, for the disk is full or fails, looks whether one
can be made now, and then ends likewise.
"""

import errno
import logging
import os
from collections.abc import Callable

from estat.accounting import metrics
from estat.accounting.shared_memory import GIVEN_UP, LOST, PROVEN, SharedPage
from estat.disk.server_directory import LEASE_SECONDS, ServerDirectory, now
from estat.errors import DiskError
from estat.threads import Offload

log = logging.getLogger(__name__)


class Lease:
    """The proof, of the directory at ``path``; without ``directory`` the server has none yet."""

    def __init__(self, directory: ServerDirectory | None, path: str, page: SharedPage) -> None:
        #: Whether another server may have the directory, and so may have stored what is in it.
        self.gone = False
        #: Called when the worker must end.
        self.on_over: Callable[[str], object] = lambda _reason: None
        self._directory = directory
        self._path = path
        self._page = page
        self._threads = Offload(1)
        # what was proven for the server holds for this worker, and nothing was since
        self._until = page.directory[PROVEN] + LEASE_SECONDS
        self._not_made = None if directory else OSError(errno.ENOENT, "not made yet")

    def check(self) -> None:
        """Raise DiskError if this worker must not write to the directory."""
        if not self.gone and self._directory and now() <= self._until:
            return  # the path of every group of events
        error = self._not_made or OSError(errno.ESTALE, "could not be renewed in time")
        if self.gone:
            error = OSError(errno.ESTALE, "moved away, mounted over, or taken over")
        raise DiskError("own", self._path, error)

    def renew(self) -> None:
        """Prove it again. Raises DiskError."""
        if self._directory is None:
            self._try_to_make()
            return
        started = now()
        proven = self._threads.run(self._directory.touch, self._size_bytes())
        given_up = self._page.directory[GIVEN_UP] != self._directory.number
        if proven and not given_up:
            if self.gone:
                log.warning("directory_back", extra={"directory": self._path})
            self.gone = False
            self._page.directory[PROVEN] = started
            self._until = started + LEASE_SECONDS
            return
        if not self.gone:
            self.gone = True
            log.critical("directory_gone", extra={"directory": self._path})
        if given_up:
            self.on_over("its directory was given up")
        elif started > self._until:
            self._page.directory[LOST] = 1
            self.on_over("its directory is lost")
        self.check()

    def _try_to_make(self) -> None:
        """End the worker if a directory can be made now: the arbiter makes it."""
        try:
            self._threads.run(_make_and_release, os.path.dirname(os.path.dirname(self._path)))
        except DiskError as exc:
            self._not_made = OSError(exc.errno, str(exc))
            raise
        self.on_over("a directory can be made now")

    def _size_bytes(self) -> int:
        """Return the bytes in the directory, journals included."""
        rows = [row.read() for row in self._page.used_rows()]
        return sum(row[metrics.DLQ_BYTES] + row[metrics.JOURNAL_BYTES] for row in rows)


def _make_and_release(dlq_dir: str) -> None:
    ServerDirectory.make(dlq_dir).release()
