"""File operations that survive a crash, or say that they failed.

A new file gets a temporary name, is written and synced, then renamed, and the
directory synced; a reader never sees half of it. All of it blocks: call it
through ``Offload``. OSErrors come out as DiskError with operation and path.

What lies in DLQ_DIR may have been put there by others. So links are not followed, FIFOs
and devices are not opened, and in a directory that everybody may write to, only what
belongs to this process's user or to root is.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from estat.errors import DiskError


class Access(NamedTuple):
    """The modes with which new directories and files are made; the umask may take from them."""

    directory: int
    file: int
    #: A directory that is never made: where it is gone, nothing is made in its place.
    top: str = ""


#: Of what lies in DLQ_DIR.
PRIVATE = Access(0o700, 0o600)

#: Of what DLQ_DIR lies in, if that is missing.
PASSABLE = Access(0o755, 0o644)

#: Of objects and other output: as the umask says.
BY_UMASK = Access(0o777, 0o666)

#: Temporary files end so; a scan skips them. Who writes one holds its lock (flock), so that a walk
#: removes those that dead processes left.
TEMPORARY = ".tmp"

_READ_BYTES = 1024 * 1024
_ROOT = 0
_also_trusted: set[int] = set()

# two threads may write the same path: an attempt that was given up, and the next
_serial = itertools.count()


@contextlib.contextmanager
def disk_errors(operation: str, path: str) -> Iterator[None]:
    """Raise DiskError for an OSError inside."""
    try:
        yield
    except OSError as exc:
        raise DiskError(operation, path, exc) from exc


def sync_directory(path: str) -> None:
    """Make renames and new names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def trust(user: int) -> None:
    """Let this process follow what belongs to another user, for whom a command works."""
    _also_trusted.add(user)


def is_trusted(user: int) -> bool:
    """Tell whether what belongs to a user is followed where everybody may write."""
    return user in (_ROOT, os.geteuid()) or user in _also_trusted


def why_not_followed(status: os.stat_result, directory: os.stat_result) -> str:
    """Return why an entry of a directory is not followed; empty if it is followed."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        is_link = stat.S_ISLNK(status.st_mode)
        return "a symbolic link" if is_link else "neither a file nor a directory"
    if directory.st_mode & stat.S_IWOTH and not is_trusted(status.st_uid):
        return f"of user {status.st_uid}, in a directory that everybody may write to"
    return ""


def not_followed(path: str) -> Iterator[tuple[str, str]]:
    """Find everything below a directory that is not followed; yield its path, and why.

    What can't be looked at, or is gone meanwhile, is left out.
    """
    with contextlib.suppress(OSError), os.scandir(path) as found:
        directory = os.stat(path)
        everybody = directory.st_mode & stat.S_IWOTH
        for entry in found:
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False) and not everybody:
                    continue  # there may be millions
                status = entry.stat(follow_symlinks=False)
                why = why_not_followed(status, directory)
                if why:
                    yield entry.path, why
                elif stat.S_ISDIR(status.st_mode):
                    yield from not_followed(entry.path)


def check_directory(path: str) -> None:
    """Raise OSError if ``path`` is there, and is no directory that may be followed."""
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat(path)
        why = why_not_followed(status, os.stat(os.path.dirname(path) or "."))
        if why or not stat.S_ISDIR(status.st_mode):
            raise OSError(errno.ENOTDIR, f"not followed: {why or 'no directory'}", path)


def entries(path: str) -> Iterator["os.DirEntry[str]"]:
    """Yield the entries of a directory, but for those that strangers may have made.

    Links are yielded: ask an entry with ``follow_symlinks=False``. Raises OSError, also if the
    directory itself is not followed.
    """
    check_directory(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        everybody = os.fstat(descriptor).st_mode & stat.S_IWOTH
        with os.scandir(descriptor) as found:
            for entry in found:
                if not everybody or _is_trusted(entry):
                    yield entry
    finally:
        os.close(descriptor)


def _is_trusted(entry: "os.DirEntry[str]") -> bool:
    try:
        return is_trusted(entry.stat(follow_symlinks=False).st_uid)
    except FileNotFoundError:
        return False  # gone meanwhile


def open_file(path: str, flags: int, mode: int = PRIVATE.file) -> int:
    """Open a regular file that may be followed. Raises OSError for everything else."""
    safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | safe, mode)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "not followed: a symbolic link", path) from exc
        raise
    try:
        status = os.fstat(descriptor)
        why = why_not_followed(status, os.stat(os.path.dirname(path) or "."))
        if why or not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"not followed: {why or 'a directory'}", path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make_private(path: str) -> None:
    """Make a directory within DLQ_DIR, or close one to other writers. Raises OSError."""
    check_directory(path)
    make_directories(path, PRIVATE)
    status = os.lstat(path)
    if status.st_mode & 0o022 and status.st_uid == os.geteuid():
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~0o022)


def make_directories(path: str, access: Access) -> None:
    """Create a directory and its parents, each durable in its own parent.

    One that is there already is made durable as well: whoever made it may have failed to, may
    have died before it could, or may be about to.
    """
    if not path:
        return  # the working directory
    parent = os.path.dirname(path)
    there = os.path.isdir(path)
    if not there:
        if path == access.top:
            raise FileNotFoundError(errno.ENOENT, "moved away or deleted", path)
        make_directories(parent, access)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, access.directory)
    try:
        sync_directory(parent or ".")
    except PermissionError:
        if not there:
            raise  # else it lies in a directory that is not ours, and was made by others


def read_whole(path: str) -> bytes:
    """Return the bytes of a file that may be followed. Raises DiskError."""
    with disk_errors("read", path):
        return read_open(open_file(path, os.O_RDONLY))


def read_open(descriptor: int) -> bytes:
    """Return the bytes of an open file, and close it. Raises OSError."""
    try:
        return b"".join(iter(lambda: os.read(descriptor, _READ_BYTES), b""))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """Open a file that may be followed to read it. Raises OSError."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        yield file


def remove(path: str) -> None:
    """Delete a file; one that is gone is fine. Raises DiskError."""
    with disk_errors("unlink", path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def write_whole(path: str, parts: Iterable[bytes], access: Access) -> None:
    """Write a file so that it is there whole and durable, or not at all. Raises DiskError.

    A file that is there is replaced.
    """
    with disk_errors("write", path), _written(path, parts, access) as temporary:
        os.rename(temporary, path)
        try:
            sync_directory(os.path.dirname(path))
        except OSError:
            os.unlink(path)  # not durable, so not there: whoever called keeps the content
            raise


def write_new(path: str, parts: Iterable[bytes], access: Access) -> bool:
    """Write a file so, unless one is there; tell whether it was written. Raises DiskError.

    Either way the file's name is durable, whoever made it. After an error a file may be left:
    somebody may have found it there, and relied on it after a sync of his own.
    """
    with disk_errors("write", path), _written(path, parts, access) as temporary:
        is_new = _link(temporary, path)
        sync_directory(os.path.dirname(path))
    return is_new


@contextlib.contextmanager
def _written(path: str, parts: Iterable[bytes], access: Access) -> Iterator[str]:
    """Write and sync what is to be the file at ``path``; yield its name while that lasts."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}-{next(_serial)}{TEMPORARY}")
    try:
        make_directories(directory, access)
        try:
            descriptor = _open_new(temporary, access.file)
        except FileNotFoundError:
            make_directories(directory, access)  # whoever emptied it has removed it meanwhile
            descriptor = _open_new(temporary, access.file)
        try:
            for part in parts:
                _write_all(descriptor, part)
            os.fsync(descriptor)
            yield temporary
        finally:
            os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _open_new(path: str, mode: int) -> int:
    """Open a new file, and lock it where the file system can.

    What has its name is left from a process of the same number. A walk may take the file for that
    of a dead process as long as it is not locked: then another one is opened.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(path, flags, mode)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            continue
        removed = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            removed = isinstance(exc, BlockingIOError)
        if not removed and os.fstat(descriptor).st_nlink:
            return descriptor
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
        if os.path.exists(path):
            return False
        os.rename(temporary, path)
    return True


def file_names(path: str) -> Iterator[str]:
    """Read the names of a directory's files one by one; there are none in one that is gone."""
    with contextlib.suppress(FileNotFoundError):
        for entry in entries(path):
            if entry.is_file(follow_symlinks=False):
                yield entry.name


def directory_names(path: str) -> list[str]:
    """Return the names of a directory's directories in order; none of one that is gone."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(e.name for e in entries(path) if e.is_dir(follow_symlinks=False))
    return []


def remove_empty(path: str) -> None:
    """Remove a directory if nothing is in it; whoever has come meanwhile, or the next, does."""
    with contextlib.suppress(OSError):
        os.rmdir(path)
