"""The directory of one run of a server in DLQ_DIR, and the lock that says whose it is.

    DLQ_DIR/servers/<server>/lock                  held (flock) by every process of the server
    DLQ_DIR/servers/<server>/journal, pending, …   its streams, and its dead letter queue
    DLQ_DIR/servers/<server>/hours                 which hours it has open

The lock holds one line of a fixed length, which the owner writes anew once a second: the boot of
its kernel, whether it was released by a clean stop, and the bytes in the directory.

    {"boot":"2f6c…","released":0,"bytes":          123}

Nobody but the owner writes to a directory. Whoever takes it over opens the lock, never creates
it, and renames the directory first: every path of an owner that wakes up is dead then. A free
lock decides alone if it names this very boot, or was released. Else its owner may be a host that
was cut off from the volume, and so lost its locks without a word: then the lock must also be
``SILENCE_SECONDS`` older than what the taker has touched just now. Both times are of the
volume's one clock.

All calls block: use them through ``Offload``. They raise DiskError.
"""

import contextlib
import errno
import json
import os
import stat
import time
from typing import NamedTuple, Self

from estat.disk import directory_lock, files, hour_files, journal, locks
from estat.disk.directory_lock import LOCK, DirectoryLock
from estat.disk.dlq import EXPIRED, PENDING, QUARANTINE, DeadLetterQueue
from estat.errors import DiskError
from estat.events import ids

SERVERS = "servers"

#: How long an owner goes on that could not prove its ownership.
LEASE_SECONDS = 20.0

#: How long the lock of a server under another kernel must have been left alone.
SILENCE_SECONDS = 3 * LEASE_SECONDS

#: The path for a server that has no directory yet: nobody ever makes it.
NONE = ".none"

AREAS = (PENDING, EXPIRED, QUARANTINE, journal.DIRECTORY, hour_files.DIRECTORY)

#: In these every directory has the name of a stream, or of a server.
_OF_NAMES = (journal.DIRECTORY, hour_files.DIRECTORY)

#: Files that hold no events. The first is of earlier versions.
_LEADER, _PROBE = "leader.lock", ".probe"
_EMPTY_FILES = ("heartbeat", LOCK, _LEADER, _PROBE)

#: Used for a lock that is missing or no file: no server has it.
_NO_LOCK = (errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.EISDIR)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_LINE_BYTES = 256  # a lock's line is shorter
_MOST_BYTES = 2**50  # whatever a lock tells

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Sign(NamedTuple):
    """What a server's lock tells."""

    boot: str = ""
    released: bool = False
    size_bytes: int = 0


class ServerDirectory(DirectoryLock):
    """A server's directory, locked. The workers inherit the lock, on purpose."""

    #: How many others the server had given up when it made this one.
    number = 0

    @classmethod
    def make(cls, dlq_dir: str) -> Self:
        """Make a new one. If there is no room for it, use a dead server's."""
        servers = make_place(dlq_dir)
        made = None
        try:
            made = cls.create(servers, ids.new_stream())
            DeadLetterQueue(made.path).create()
            made.touch(0)
        except DiskError as exc:
            if made:
                with contextlib.suppress(DiskError):
                    made.release()
            made = cls._reuse(os.path.dirname(servers)) if exc.errno in _NO_ROOM else None
            if made is None:
                raise
        made.sync()
        return made

    @classmethod
    def take(cls, path: str, name: str = "") -> Self | None:
        """Lock and rename the directory of a dead server.

        None if its owner may live, or another was faster. A directory without a lock is taken
        when nothing in it was changed for ``SILENCE_SECONDS``. ``name`` is that of a server that
        goes on with it: the names of the streams in it say then that they are of another run.
        """
        servers, old = os.path.split(path)
        taken = cls(os.path.join(servers, name or _next_name(old)), -1)
        with files.disk_errors("take over", path), contextlib.ExitStack() as unless_taken:
            unless_taken.callback(taken.close)
            try:
                if not _may_be_dead(path):
                    return None
                with contextlib.suppress(FileNotFoundError):
                    taken._descriptor = locks.lock(os.path.join(path, LOCK))
                if not _may_be_dead(path):
                    return None  # its owner came back a moment ago
                os.rename(path, taken.path)
                files.sync_directory(servers)
                if taken._descriptor < 0:
                    # the name is this process's own, so nobody else makes one
                    taken._descriptor = locks.lock(os.path.join(taken.path, LOCK), create=True)
            except (BlockingIOError, FileNotFoundError):
                return None
            taken.touch(0)
            journals = os.path.join(taken.path, journal.DIRECTORY)
            for stream in directory_lock.streams(journals) if name else ():
                directory_lock.hand_on(os.path.join(journals, stream), journals, files.PRIVATE)
            unless_taken.pop_all()
        return taken

    @classmethod
    def _reuse(cls, dlq_dir: str) -> Self | None:
        """Use a dead server's directory as a new one, which costs no inode."""
        for path in _servers(dlq_dir):
            with contextlib.suppress(DiskError):  # if one can't be taken, the next one may do
                taken = cls.take(path, ids.new_stream())
                if taken:
                    return taken
        return None

    def touch(self, size_bytes: int) -> bool:
        """Prove that this server still has the directory, and tell so in the lock.

        Tell whether it has. Raises DiskError where the disk does not say.
        """
        with files.disk_errors("touch", self.path):
            try:
                locks.again(self._descriptor)
                self._say(Sign(boot_id(), size_bytes=size_bytes))
            except BlockingIOError:
                return False
            except OSError:
                # a network volume refuses a file that has lost its lock, and that one alone
                if self.held:
                    DeadLetterQueue(self.path).probe()
                return False
            return self.held

    def sync(self) -> None:
        """Make what the lock tells durable, if that can be: else others have to wait longer."""
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)

    def release(self) -> None:
        """Leave the directory to others, or remove it where nothing is left in it."""
        try:
            if self.held:
                _clear(self.path)
                with files.disk_errors("write", os.path.join(self.path, LOCK)):
                    self._say(Sign(boot_id(), released=True))
            super().release()
        finally:
            self.close()

    def _say(self, sign: Sign) -> None:
        """Write a line to the lock, always of the same length. Raises OSError."""
        line = (
            f'{{"boot":"{sign.boot:36}","released":{sign.released:d},"bytes":{sign.size_bytes:20}}}'
        )
        try:
            os.pwrite(self._descriptor, line.encode() + b"\n", 0)
        except OSError as exc:
            if exc.errno not in _NO_ROOM:
                raise
            os.utime(self._descriptor)  # it was never written: its time must do


def make_place(dlq_dir: str) -> str:
    """Make the directory in which the servers' lie, and return it."""
    dlq_dir = os.path.realpath(dlq_dir)  # itself it may be a link
    servers = os.path.join(dlq_dir, SERVERS)
    with files.disk_errors("create", servers):
        # others may have to pass through it to what else lies there
        files.make_directories(os.path.dirname(dlq_dir), files.PASSABLE)
        files.make_private(dlq_dir, opened=stat.S_IWOTH)  # as an emptyDir is
        files.make_private(servers)
    return servers


def now() -> float:
    """Return the seconds of a clock that never steps, and that goes on while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what names this run of the kernel; empty where it is not to be had."""
    with contextlib.suppress(OSError), open(_BOOT_ID, encoding="utf-8") as file:
        return file.read().strip()
    return ""


def sign_of(path: str) -> Sign:
    """Return what the lock in a server's directory tells; nothing where it can't be read."""
    try:
        told = json.loads(files.read_beginning(os.path.join(path, LOCK), _LINE_BYTES))
        size_bytes = max(0, min(int(told["bytes"]), _MOST_BYTES))
        return Sign(str(told["boot"]).strip(), bool(told["released"]), size_bytes)
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        return Sign()


def _clear(path: str) -> None:
    """Remove files without events, but not the lock."""
    with files.disk_errors("remove", path):
        for name in list(files.file_names(path)):
            if name != LOCK and _is_nothing(name):
                files.remove(os.path.join(path, name))
        for area in (os.path.join(path, name) for name in AREAS):
            for name in files.directory_names(area):
                files.remove_empty(os.path.join(area, name))
            files.remove_empty(area)


class Contents(NamedTuple):
    """What lies in a server's directory."""

    #: Area and name of each slot and stream, in the order in which they are to be taken over: slots
    #: first, so that a journal whose batch is in the DLQ already finds it there; hours last. A
    #: quarantine that has no slots is moved as one, and has no name.
    moving: list[tuple[str, str]]
    #: Paths of unknown files: they are neither sent nor deleted.
    strays: list[str]


def contents(path: str) -> Contents:
    """Return what lies in a server's directory."""
    moving: list[tuple[str, str]] = []
    with files.disk_errors("scan", path):
        areas = [area for area in AREAS if area in files.directory_names(path)]
        names = [name for name in os.listdir(path) if name not in areas and not _is_nothing(name)]
        strays = [os.path.join(path, name) for name in sorted(names)]
        for area, place in ((area, os.path.join(path, area)) for area in areas):
            known = files.directory_names(place)
            if area in _OF_NAMES:
                known = list(filter(directory_lock.is_stream, known))
            moving += [(area, name) for name in known]
            if area != QUARANTINE:
                unknown = {entry.name for entry in files.entries(place)} - {*known}
                strays += [os.path.join(place, name) for name in sorted(unknown)]
            elif not known:
                moving.append((area, ""))
    return Contents(moving, strays)


def convert_flat(dlq_dir: str) -> None:
    """Give what an earlier version has left in DLQ_DIR itself a server's directory.

    One server had all of it then. If it lives, it holds leader.lock or the lock of a stream, and
    nothing is done.
    """
    dlq_dir = os.path.realpath(dlq_dir)  # it may be the operator's own link
    journals = os.path.join(dlq_dir, journal.DIRECTORY)
    with contextlib.ExitStack() as held, files.disk_errors("take over", dlq_dir):
        if not has_areas(dlq_dir):
            return
        paths = [os.path.join(dlq_dir, _LEADER)]
        if journal.DIRECTORY in files.directory_names(dlq_dir):
            paths += [os.path.join(journals, n, LOCK) for n in directory_lock.streams(journals)]
        for path in paths:
            try:
                held.callback(os.close, locks.lock(path))
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno not in _NO_LOCK:
                    raise
        made = ServerDirectory.create(make_place(dlq_dir), ids.new_stream())
        held.callback(made.close)
        made.touch(0)  # others take it over as soon as it is free
        there = [*files.directory_names(dlq_dir), *files.file_names(dlq_dir)]
        # slots first, see ``Contents``
        for name in (name for name in (*AREAS, _PROBE, _LEADER) if name in there):
            os.rename(os.path.join(dlq_dir, name), os.path.join(made.path, name))
        files.sync_directory(made.path)
        files.sync_directory(dlq_dir)


def queues(dlq_dir: str) -> list[str]:
    """Return the directories in DLQ_DIR that have files: itself, and the servers', oldest first.

    Earlier versions kept their files in DLQ_DIR. One server's directory may be named, too. One
    that may not be read is left out: ``files.not_followed`` tells of it.
    """
    return [path for path in (dlq_dir, *_servers(dlq_dir)) if has_areas(path)]


def _servers(dlq_dir: str) -> list[str]:
    """Return the directories of the servers that have a name by now, oldest first."""
    servers = os.path.join(dlq_dir, SERVERS)
    with files.disk_errors("scan", servers):
        names = files.directory_names(servers)
    return [os.path.join(servers, name) for name in names if not name.startswith(".")]


def has_areas(path: str) -> bool:
    """Tell whether a directory has the directories of a dead letter queue in it, or some."""
    with contextlib.suppress(PermissionError):
        return not set(AREAS).isdisjoint(files.directory_names(path))
    return False


def passed_over(dlq_dir: str) -> dict[str, tuple[str, str]]:
    """Return the paths in a DLQ_DIR that are not looked into: a reason of FILES_ASIDE, and why.

    Raises DiskError.
    """
    found = {path: ("not_followed", why) for path, why in files.not_followed(dlq_dir)}
    with files.disk_errors("scan", dlq_dir):
        roots = [path for path in _servers(dlq_dir) if has_areas(path)]
    for root in roots:
        # what may not be read is found already, and what is gone meanwhile is nothing
        with contextlib.suppress(DiskError):
            for path in contents(root).strays:
                found.setdefault(path, ("unknown", "no rule knows it"))
    return found


def _is_nothing(name: str) -> bool:
    """Tell whether a file holds no events."""
    return name in _EMPTY_FILES or (name.startswith(".") and name.endswith(files.TEMPORARY))


def _next_name(name: str) -> str:
    """Return the name of a directory once it is taken, and taken again."""
    server, _, number = name.lstrip(".").partition(".")
    return f"{server}.{int(number) + 1 if number.isdecimal() else 1}"


def _may_be_dead(path: str) -> bool:
    """Tell whether a server is dead if its lock is free. Raises OSError."""
    sign = sign_of(path)
    if sign.released or (sign.boot and sign.boot == boot_id()):
        return True
    servers = os.path.dirname(path)
    os.utime(servers)
    # a time in the future counts as one in the past: the clock was ahead
    return abs(os.stat(servers).st_mtime - _written(path)) >= SILENCE_SECONDS


def _written(path: str) -> float:
    """Return when a server wrote its lock; without one, when anything in it was made or removed."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(os.path.join(path, LOCK)).st_mtime
    return max((os.lstat(place).st_mtime for place, _, _ in os.walk(path)), default=0.0)
