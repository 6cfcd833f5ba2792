"""The lock by which one worker among all does what only one may do: empty the DLQ.

It is a file's lock (flock), taken after fork, so the kernel frees it when its
holder dies, and the next worker that asks leads.
"""

import os
from collections.abc import Callable

from estat.disk import files, locks


class Leader:
    """This worker's share in the leadership; the lock is ``leader.lock`` in ``directory``."""

    def __init__(self, directory: str, may_write: Callable[[], object] = lambda: None) -> None:
        self._may_write = may_write
        self._path = os.path.join(directory, "leader.lock")
        self._descriptor: int | None = None

    def lead(self) -> bool:
        """Take the lock, if no other worker has it.

        Raises DiskError, also while the directory may not be this server's.
        """
        self._may_write()
        if self._descriptor is not None:
            return True
        with files.disk_errors("lock", self._path):
            try:
                self._descriptor = locks.lock(self._path, create=True)
            except BlockingIOError:
                return False
        return True

    def release(self) -> None:
        """Let another worker lead."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
