"""Opens, reads and makes what lies on disk, whoever has put it there.

All of it blocks: call it through ``Offload``. How a file is written is in ``whole_file``.

What lies in DLQ_DIR may have been put there by others. So a path is walked name by name, each
opened in the directory before it: no link is followed, no FIFO or device opened. In a directory
that everybody may write to, only what belongs to root or to us is followed, and no file that has
a second name. "Us" is the user whom the volume gives to a file that this process makes: a network
volume may squash users. Paths come with their links resolved (``os.path.realpath``).
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from typing import NamedTuple

from estat.errors import DiskError, NotOurs
from estat.events.gzip import MAX_BYTES, TOO_LARGE


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
_LOOK_UP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: Whom a volume gives what this process makes there, by process's user and volume.
_owners: dict[tuple[int, int], int] = {}


@contextlib.contextmanager
def disk_errors(operation: str, path: str) -> Iterator[None]:
    """Raise DiskError for an OSError inside."""
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.EACCES:
            exc.strerror = f"{exc.strerror} for user {os.geteuid()}"
        raise DiskError(operation, path, exc) from exc


def close(descriptor: int) -> None:
    """Close the descriptor of a directory, now.

    gevent's ``os.close`` leaves all but regular files open until the event loop takes a turn. The
    arbiter has no loop, and would soon have too many open files.
    """
    os.closerange(descriptor, descriptor + 1)


def sync_directory(path: str) -> None:
    """Make renames and new names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        close(descriptor)


class NotFollowed(OSError):
    """What has a name is not what this server makes: it is neither opened nor changed."""

    def __init__(self, why: str, path: str) -> None:
        super().__init__(errno.ELOOP, f"not followed: {why}", path)


def open_directory(path: str, *, anybodys: bool = False) -> int:
    """Open a directory to look up names in it (O_PATH). Raises OSError, and NotFollowed.

    With ``anybodys`` it does not matter whose it is; links are not followed all the same.
    """
    here = os.open("/" if path.startswith("/") else ".", _LOOK_UP)
    for name in filter(None, path.split("/")):
        above = here
        try:
            here = os.open(name, _LOOK_UP, dir_fd=above)
            if not anybodys:
                _check(here, above, path)
        finally:
            close(above)
    if not stat.S_ISDIR(os.fstat(here).st_mode):
        close(here)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return here


def _check(descriptor: int, directory: int, path: str) -> None:
    """Raise NotFollowed, and close what was opened in a directory, unless it is followed."""
    status = os.fstat(descriptor)
    # a volume may be mounted there
    place = descriptor if stat.S_ISDIR(status.st_mode) else directory
    why = why_not_followed(status, directory, place)
    if why:
        close(descriptor)
        raise NotFollowed(why, path)


def why_not_followed(status: os.stat_result, directory: int, volume: int | None = None) -> str:
    """Return why an entry of an open directory is not followed; empty if it is followed.

    ``volume`` is an open directory of its volume, if that is not the directory's.
    """
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        is_link = stat.S_ISLNK(status.st_mode)
        return "a symbolic link" if is_link else "neither a file nor a directory"
    if not os.fstat(directory).st_mode & stat.S_IWOTH:
        return ""
    if not is_trusted(status.st_uid, directory if volume is None else volume):
        return f"of user {status.st_uid}, in a directory that everybody may write to"
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        return "a file with a second name, in a directory that everybody may write to"
    return ""


def is_trusted(user: int, directory: int) -> bool:
    """Tell whether a user is root or us, as the volume of an open directory sees us."""
    return user in (_ROOT, os.geteuid()) or user == _owner_in(directory)


def _owner_in(directory: int) -> int:
    """Find out whom a volume gives what we make, by making a file in an open directory."""
    us = os.geteuid(), os.fstat(directory).st_dev
    if us not in _owners:
        name = temporary_name("")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(name, flags, PRIVATE.file, dir_fd=directory)
        except OSError:
            return us[0]  # it is asked again
        try:
            _owners[us] = os.fstat(descriptor).st_uid
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=directory)
    return _owners[us]


def temporary_name(name: str) -> str:
    """Return a name, which nothing else has, for what is to get a name later."""
    return f".{name}.{secrets.token_hex(8)}{TEMPORARY}"


def not_followed(path: str, depth: int = 8) -> Iterator[tuple[str, str]]:
    """Find everything below a directory that is not followed; yield its path, and why.

    Entries that can't be looked at are yielded too, and those that lie deeper than the server's
    files do. Entries that are gone meanwhile are left out.
    """
    try:
        with _listed(path) as (directory, found):
            everybody = os.fstat(directory).st_mode & stat.S_IWOTH
            for entry in found:
                if entry.is_file(follow_symlinks=False) and not everybody:
                    continue  # there may be millions
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    below = os.path.join(path, entry.name)
                    why = why_not_followed(status, directory)
                    if why or not depth:
                        yield below, why or "too deep"
                    elif stat.S_ISDIR(status.st_mode):
                        yield from not_followed(below, depth - 1)
    except FileNotFoundError:
        pass
    except OSError as exc:
        yield path, exc.strerror or str(exc)


def entries(path: str) -> Iterator["os.DirEntry[str]"]:
    """Yield the entries of a directory, without those that other users may have made.

    Links are yielded: ask an entry with ``follow_symlinks=False``. Raises OSError, also if the
    directory itself is not followed.
    """
    with _listed(path) as (directory, found):
        everybody = os.fstat(directory).st_mode & stat.S_IWOTH
        for entry in found:
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                if not (everybody and _is_passed_over(entry, directory)):
                    yield entry


def _is_passed_over(entry: "os.DirEntry[str]", directory: int) -> bool:
    status = entry.stat(follow_symlinks=False)
    return not entry.is_symlink() and why_not_followed(status, directory) != ""


@contextlib.contextmanager
def _listed(path: str) -> Iterator[tuple[int, Iterator["os.DirEntry[str]"]]]:
    """Open a directory that is followed, and read it."""
    above = open_directory(path)
    try:
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    finally:
        close(above)
    try:
        with os.scandir(directory) as found:
            yield directory, found
    finally:
        close(directory)


def open_file(path: str, flags: int, mode: int = PRIVATE.file) -> int:
    """Open a regular file that may be followed. Raises OSError, and NotFollowed."""
    parent, name = os.path.split(path)
    directory = open_directory(parent)
    try:
        with contextlib.suppress(FileNotFoundError):
            # first of all: to open a device may set something going
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            why = why_not_followed(found, directory)
            if why or stat.S_ISDIR(found.st_mode):
                raise NotFollowed(why or "a directory", path)
        safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags | safe, mode, dir_fd=directory)
        _check(descriptor, directory, path)  # another may have come meanwhile
        return descriptor
    finally:
        close(directory)


def make_private(path: str, opened: int = 0) -> None:
    """Make a directory within DLQ_DIR, or close one of ours to others. Raises OSError.

    One with a bit of the mode ``opened`` was opened to them on purpose, and stays so.
    """
    make_directories(path, PRIVATE)
    directory = open_directory(path)
    try:
        status = os.fstat(directory)
        is_open = status.st_mode & 0o077 and not status.st_mode & opened
        if is_open and is_trusted(status.st_uid, directory):
            with contextlib.suppress(OSError):  # it is root's, or its volume has no modes
                os.chmod(".", status.st_mode & 0o700, dir_fd=directory)
    finally:
        close(directory)


def make_directories(path: str, access: Access) -> None:
    """Create a directory and its parents, each durable in its own parent.

    One that is there already is made durable as well: whoever made it may have failed to, may
    have died before it could, or may be about to. Raises OSError, and NotFollowed.
    """
    if not path:
        return  # the working directory
    parent = os.path.dirname(path)
    there = is_directory(path)
    if not there:
        if path == access.top:
            raise FileNotFoundError(errno.ENOENT, "moved away or deleted", path)
        make_directories(parent, access)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, access.directory)
        is_directory(path)  # somebody else may have put something else there
    try:
        sync_directory(parent or ".")
    except PermissionError:
        if not there:
            raise  # else it lies in a directory that is not ours, and was made by others


def is_directory(path: str) -> bool:
    """Tell whether a directory is there. Raises OSError, and NotFollowed."""
    try:
        close(open_directory(path))
    except FileNotFoundError:
        return False
    return True


def read_whole(path: str) -> bytes:
    """Return the bytes of a file that may be followed. Raises DiskError, and NotOurs."""
    with disk_errors("read", path):
        return read_open(open_file(path, os.O_RDONLY))


def read_open(descriptor: int) -> bytes:
    """Return the bytes of an open file, and close it.

    Raises OSError, and NotOurs for a file that is too large to be one of ours.
    """
    try:
        if os.fstat(descriptor).st_size > MAX_BYTES:
            raise NotOurs(TOO_LARGE)
        return b"".join(iter(lambda: os.read(descriptor, _READ_BYTES), b""))
    finally:
        os.close(descriptor)


def read_beginning(path: str, size_bytes: int) -> bytes:
    """Return the first bytes of a file that may be followed. Raises OSError."""
    descriptor = open_file(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size_bytes, 0)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Delete a file; one that is gone is fine. Raises DiskError."""
    with disk_errors("unlink", path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def file_names(path: str) -> Iterator[str]:
    """Read the names of a directory's files one by one; a directory that is gone has none."""
    with contextlib.suppress(FileNotFoundError):
        for entry in entries(path):
            if entry.is_file(follow_symlinks=False):
                yield entry.name


def directory_names(path: str) -> list[str]:
    """Return the names of a directory's directories in order; one that is gone has none."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(e.name for e in entries(path) if e.is_dir(follow_symlinks=False))
    return []


def remove_empty(path: str) -> None:
    """Remove a directory if nothing is in it; else whoever empties it removes it."""
    with contextlib.suppress(OSError):
        os.rmdir(path)
