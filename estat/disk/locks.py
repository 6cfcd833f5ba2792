"""Locks a file (flock), so that no two processes do the same.

The kernel frees a lock when its holder dies, however it dies. Whoever locks a file follows
no link to it, and makes sure afterwards that it still is the file of that name: one that
was removed meanwhile may have been made anew, and locked by another.
"""

import contextlib
import errno
import fcntl
import os

from estat.disk import files

#: On these a file may still be open for reading, and locked.
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def lock(path: str, *, create: bool = False, shared: bool = False) -> int:
    """Open a file and lock it; return the descriptor, which holds the lock until it is closed.

    With ``create`` a missing file is made. Raises BlockingIOError if another process has the
    lock, FileNotFoundError if no such file has the name any more, and OSError.
    """
    descriptor = _open(path, create)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if not is_at(path, descriptor):
            raise FileNotFoundError(errno.ENOENT, "removed since it was opened", path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_left(path: str) -> None:
    """Remove a file that a dead process left half-written: one that lives holds its lock."""
    with contextlib.suppress(OSError):
        descriptor = lock(path)
        try:
            os.unlink(path)
        finally:
            os.close(descriptor)


def again(descriptor: int) -> None:
    """Lock an open file once more, should the volume have lost the lock. Raises as ``lock``."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: str) -> bool:
    """Tell whether another process has the lock on a file; nothing is created or kept.

    Whoever tries to take a free lock at this very moment has to try again. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            # shared, so that two that ask at once don't take each other for the owner
            os.close(lock(path, shared=True))
        except BlockingIOError:
            return True
    return False


def is_at(path: str, descriptor: int) -> bool:
    """Tell whether an open file still has its name. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _open(path: str, create: bool) -> int:
    try:
        # NFS locks exclusively only what is open for writing (flock(2))
        return files.open_file(path, os.O_RDWR | (os.O_CREAT if create else 0))
    except OSError as exc:
        if exc.errno not in ((errno.EROFS,) if create else _READ_ONLY):
            raise
        try:
            return files.open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            raise exc from None
