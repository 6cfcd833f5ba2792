"""Writes files that survive a crash, or says that it failed.

A new file gets a temporary name, is written and synced, then renamed, and the directory
synced; a reader never sees half of it. All of it blocks: call it through ``Offload``.
OSErrors come out as DiskError with operation and path.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator

from estat.disk import files

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def write(path: str, parts: Iterable[bytes], access: files.Access) -> None:
    """Write a file so that it is there whole and durable, or not at all. Raises DiskError.

    A file that is there is replaced.
    """
    with files.disk_errors("write", path), _written(path, parts, access) as temporary:
        os.rename(temporary, path)
        try:
            files.sync_directory(os.path.dirname(path))
        except OSError:
            os.unlink(path)  # not durable, so not there: whoever called keeps the content
            raise


def write_new(path: str, parts: Iterable[bytes], access: files.Access) -> bool:
    """Write a file so, unless one is there; tell whether it was written. Raises DiskError.

    Either way the file's name is durable, whoever made it. After an error a file may be left:
    somebody may have found it there, and relied on it after a sync of his own.
    """
    with files.disk_errors("write", path):
        with _written(path, parts, access) as temporary:
            is_new = _link(temporary, path)
        files.sync_directory(os.path.dirname(path))
    return is_new


@contextlib.contextmanager
def _written(path: str, parts: Iterable[bytes], access: files.Access) -> Iterator[str]:
    """Write and sync what is to be the file at ``path``; yield its name while that lasts."""
    directory = os.path.dirname(path)
    files.make_directories(directory, access)
    try:
        temporary, descriptor = _open_new(path, access)
    except FileNotFoundError:
        files.make_directories(directory, access)  # whoever emptied it has removed it meanwhile
        temporary, descriptor = _open_new(path, access)
    try:
        for part in parts:
            _write_all(descriptor, part)
        os.fsync(descriptor)
        yield temporary
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _open_new(path: str, access: files.Access) -> tuple[str, int]:
    """Open a new file beside ``path``, and lock it where the file system can.

    A walk may take the file for that of a dead process as long as it is not locked: then another
    one is opened.
    """
    directory, name = os.path.split(path)
    while True:
        temporary = os.path.join(directory, files.temporary_name(name))
        descriptor = files.open_file(temporary, _NEW, access.file)
        removed = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            removed = isinstance(exc, BlockingIOError)
        if not removed and os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _link(temporary: str, path: str) -> bool:
    """Give a file its name unless that is taken; tell whether it was not."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except PermissionError:
        # a file system without hard links says EPERM (link(2)); the check before the rename
        # then leaves a gap, which only a second writer of the same key could fall into
        if os.path.lexists(path):
            return False
        os.rename(temporary, path)
    return True
