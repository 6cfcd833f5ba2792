"""File operations that survive a crash, or say that they failed.

A new file gets a temporary name, is written and synced, then renamed, and the
directory synced; a reader never sees half of it. All of it blocks: call it
through ``Offload``. OSErrors come out as DiskError with operation and path.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator

from estat.errors import DiskError

#: Temporary files end so; a scan skips them, and a start removes stale ones.
TEMPORARY = ".tmp"

_STALE_SECONDS = 600  # what is unfinished for so long belongs to no living process

# two threads may write the same path: an attempt that was given up, and the next
_serial = itertools.count()


@contextlib.contextmanager
def disk_errors(operation: str, path: str) -> Iterator[None]:
    """Raise DiskError for an OSError inside."""
    try:
        yield
    except OSError as exc:
        raise DiskError(operation, path, exc) from exc


def is_stale(modified: float) -> bool:
    """Tell whether something unfinished was given up, by its time of modification.

    A time in the future counts as one in the past: the clock was ahead.
    """
    return abs(time.time() - modified) > _STALE_SECONDS


def sync_directory(path: str) -> None:
    """Make renames and new names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: str) -> None:
    """Create a directory and its parents, each durable in its own parent.

    One that is there already is made durable as well: whoever made it may have failed to, may
    have died before it could, or may be about to.
    """
    if not path:
        return  # the working directory
    parent = os.path.dirname(path)
    there = os.path.isdir(path)
    if not there:
        make_directories(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
    try:
        sync_directory(parent or ".")
    except PermissionError:
        if not there:
            raise  # else it lies in a directory that is not ours, and was made by others


def read_whole(path: str) -> bytes:
    """Return a file's bytes. Raises DiskError."""
    with disk_errors("read", path), open(path, "rb") as file:
        return file.read()


def remove(path: str) -> None:
    """Delete a file; one that is gone is fine. Raises DiskError."""
    with disk_errors("unlink", path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def write_whole(path: str, parts: Iterable[bytes], *, replace: bool = True) -> None:
    """Write a file so that it is there whole and durable, or not at all.

    With ``replace=False`` an existing file is kept and FileExistsError raised, and a new one
    whose name could not be synced is left: somebody may have found it there, and relied on it
    after a sync of his own. Raises DiskError for any other failure.
    """
    directory = os.path.dirname(path)
    unique = f"{os.getpid()}-{next(_serial)}{TEMPORARY}"
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{unique}")
    with disk_errors("write", path):
        # the directory may be removed between the two steps, by whoever emptied it
        for attempt in (1, 2):
            make_directories(directory)
            try:
                file = open(temporary, "wb", buffering=0)  # noqa: SIM115 - closed below
                break
            except FileNotFoundError:
                if attempt == 2:
                    raise
    try:
        with disk_errors("write", path):
            with file:
                for part in parts:
                    _write_all(file.fileno(), part)
                os.fsync(file.fileno())
            if replace:
                os.rename(temporary, path)
            else:
                _link(temporary, path)
            try:
                sync_directory(directory)
            except OSError:
                if replace:  # not durable, so not there: whoever called keeps the content
                    os.unlink(path)
                raise
    except DiskError as exc:
        if isinstance(exc.__cause__, FileExistsError):
            raise exc.__cause__ from None
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _link(temporary: str, path: str) -> None:
    """Give the file its name unless that is taken; raises FileExistsError."""
    try:
        os.link(temporary, path)
    except PermissionError as exc:
        # a file system without hard links says EPERM (link(2)); the check
        # before the rename then leaves a gap, which only a second writer of
        # the same key could fall into
        if os.path.exists(path):
            raise FileExistsError(path) from exc
        os.rename(temporary, path)
