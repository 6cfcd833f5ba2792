"""The lock by which one worker among all does what only one may do: empty the DLQ.

It is a file's lock (flock), taken after fork, so the kernel frees it when its
holder dies, and the next worker that asks leads.
"""

import fcntl
import os

from estat.disk import files
from estat.errors import DiskError


class Leader:
    """This worker's share in the leadership; the lock is ``leader.lock`` in ``directory``."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "leader.lock")
        self._descriptor: int | None = None

    def lead(self) -> bool:
        """Take the lock, if no other worker has it. Raises DiskError."""
        if self._descriptor is not None:
            return True
        try:
            descriptor = files.open_lock(self._path)
        except OSError as exc:
            raise DiskError("open", self._path, exc) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(descriptor)
            if isinstance(exc, BlockingIOError):
                return False
            raise DiskError("lock", self._path, exc) from exc
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let another worker lead."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
