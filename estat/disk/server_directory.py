"""The directory of one run of a server in DLQ_DIR, and the lock that says whose it is.

    DLQ_DIR/servers/<server>/lock                  held (flock) by every process of the server
    DLQ_DIR/servers/<server>/journal, pending, …   its streams, and its dead letter queue

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
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

from estat.disk import directory_lock, files, journal, locks
from estat.disk.directory_lock import LOCK, DirectoryLock
from estat.disk.dlq import EXPIRED, PENDING, QUARANTINE, DeadLetterQueue
from estat.errors import DiskError
from estat.events import ids

SERVERS = "servers"

#: How long an owner goes on that could not prove its ownership.
LEASE_SECONDS = 20.0

#: How long the lock of a server under another kernel must have been left alone.
SILENCE_SECONDS = 3 * LEASE_SECONDS

#: Where a server is told to keep its files that has no directory: nobody makes it.
NONE = ".none"

AREAS = (PENDING, EXPIRED, QUARANTINE, journal.DIRECTORY)

#: Files that hold nothing of anybody's. The first is of earlier versions, which touched it.
_HEARTBEAT = "heartbeat"
_EMPTY_FILES = (_HEARTBEAT, LOCK, "leader.lock", ".probe")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

#: What a server meets that makes its directory while another one, which starts too, takes that
#: for stale: its lock is not held yet. It makes another one, so many times.
_DISTURBED = (errno.ENOENT, errno.EAGAIN)
_ATTEMPTS = 10
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
        """Make a new one. Where there is no room for it, a dead server's is taken for it."""
        servers = make_place(dlq_dir)
        directory_lock.remove_stale(servers)
        try:
            made = cls._create_undisturbed(servers)
            try:
                DeadLetterQueue(made.path).create()
                made.touch(0)
                made.sync()
            except DiskError:
                with contextlib.suppress(DiskError):
                    made.destroy()
                raise
        except DiskError as exc:
            reused = cls._reuse(servers) if exc.errno in _NO_ROOM else None
            if reused is None:
                raise
            return reused
        return made

    @classmethod
    def take(cls, path: str, name: str = "") -> Self | None:
        """Lock and rename the directory of a dead server; ``name`` is the new one.

        None if its owner may live, or another was faster. A directory without a lock is taken
        when nothing in it was changed for ``SILENCE_SECONDS``.
        """
        descriptor = -1
        servers, old = os.path.split(path)
        target = os.path.join(servers, name or _next_name(old))
        with files.disk_errors("take over", path):
            try:
                files.check_directory(path)
                if not _may_be_dead(path):
                    return None
                with contextlib.suppress(FileNotFoundError):
                    descriptor = locks.lock(os.path.join(path, LOCK))
                if not _may_be_dead(path):
                    raise BlockingIOError  # its owner came back a moment ago
                os.rename(path, target)
                files.sync_directory(servers)
                if descriptor < 0:
                    # the name is this process's own, so nobody else makes one
                    descriptor = locks.lock(os.path.join(target, LOCK), create=True)
            except OSError as exc:
                _close(descriptor)
                if isinstance(exc, BlockingIOError | FileNotFoundError):
                    return None
                raise
        taken = cls(target, descriptor)
        try:
            taken.touch(0)
        except DiskError:
            taken.close()  # it is taken anew with the next look
            raise
        return taken

    @classmethod
    def _create_undisturbed(cls, servers: str) -> Self:
        for _ in range(_ATTEMPTS - 1):
            try:
                return cls.create(servers, ids.new_stream())
            except DiskError as exc:
                if exc.errno not in _DISTURBED:
                    raise
        return cls.create(servers, ids.new_stream())

    @classmethod
    def _reuse(cls, servers: str) -> Self | None:
        """Take a dead server's directory for a new one, which costs no inode."""
        for name in directory_lock.streams(servers):
            with contextlib.suppress(DiskError):  # the next one may do
                taken = cls.take(os.path.join(servers, name), ids.new_stream())
                if taken:
                    taken.mark_streams()
                    return taken
        return None

    def mark_streams(self) -> None:
        """Give streams names that say that they are of another run; close it if that fails."""
        journals = os.path.join(self.path, journal.DIRECTORY)
        try:
            for name in directory_lock.streams(journals):
                directory_lock.hand_on(journals, name, journals, files.PRIVATE)
        except DiskError:
            self.close()
            raise

    def touch(self, size_bytes: int) -> bool:
        """Prove that this server still has the directory, and tell so in the lock.

        Tell whether it has. Raises DiskError where the disk does not say.
        """
        with files.disk_errors("touch", self.path):
            try:
                locks.again(self._descriptor)
                self._say(Sign(boot_id(), size_bytes=size_bytes))
            except OSError as exc:
                # a network volume refuses a file that has lost its lock, and that one alone
                is_ours = not isinstance(exc, BlockingIOError) and self.held
                if is_ours and not self._works():
                    raise
                return False
            return self.held

    def sync(self) -> None:
        """Make what the lock tells durable, if that can be: else others have to wait longer."""
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)

    def discard(self) -> list[str]:
        """Remove a directory that was taken over and emptied; return the paths of what stays."""
        clear(self.path)
        left = strays(self.path)
        with files.disk_errors("scan", self.path):
            if os.listdir(self.path) == [LOCK]:
                self.destroy()
                return []
        self._tell(Sign(boot_id(), released=True))
        self.close()
        return left

    def release(self) -> None:
        """Leave the directory to others, or remove it where nothing is left in it."""
        try:
            if self.held:
                if is_empty(self.path):
                    self.destroy()
                else:
                    self._tell(Sign(boot_id(), released=True))
        finally:
            self.close()

    def _works(self) -> bool:
        try:
            DeadLetterQueue(self.path).probe()
        except DiskError:
            return False
        return True

    def _tell(self, sign: Sign) -> None:
        with files.disk_errors("write", os.path.join(self.path, LOCK)):
            self._say(sign)

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
    servers = os.path.join(dlq_dir, SERVERS)
    with files.disk_errors("create", servers):
        # others may have to pass through it to what else lies there
        files.make_directories(os.path.dirname(dlq_dir), files.PASSABLE)
        files.make_private(servers)
    return servers


def now() -> float:
    """Return the seconds of a clock that never steps, and that goes on while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what names this run of the kernel; empty where it is not to be had."""
    with contextlib.suppress(OSError), open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()
    return ""


def sign_of(path: str) -> Sign:
    """Return what the lock in a server's directory tells; nothing where it can't be read."""
    try:
        told = json.loads(_beginning(os.path.join(path, LOCK)))
        size_bytes = max(0, min(int(told["bytes"]), _MOST_BYTES))
        return Sign(str(told["boot"]).strip(), bool(told["released"]), size_bytes)
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        pass
    try:  # an earlier version named its boot there
        return Sign(_beginning(os.path.join(path, _HEARTBEAT)).decode("ascii", "replace").strip())
    except OSError:
        return Sign()


def is_empty(path: str) -> bool:
    """Tell whether neither a batch nor a journal is left in a server's directory."""
    with files.disk_errors("scan", path):
        for place, directories, names in os.walk(path, onerror=_fail):
            links = [name for name in directories if os.path.islink(os.path.join(place, name))]
            if links or any(n not in _EMPTY_FILES and not _is_temporary(n) for n in names):
                return False
    return True


def _fail(error: OSError) -> None:
    """Let nothing count as empty that could not be read."""
    raise error


def clear(path: str) -> None:
    """Remove what holds nothing of anybody's, but the lock, from a directory that was emptied."""
    with files.disk_errors("remove", path):
        names = list(files.file_names(path))
        # without a lock, it is DLQ_DIR itself, which had no heartbeat
        known = _EMPTY_FILES if LOCK in names else _EMPTY_FILES[2:]
        for name in names:
            if name != LOCK and (name in known or _is_temporary(name)):
                os.unlink(os.path.join(path, name))
        for area in AREAS:
            files.remove_empty(os.path.join(path, area))


def strays(path: str) -> list[str]:
    """Return the paths of what lies in a server's directory and no rule knows.

    Such things are neither sent nor deleted.
    """
    found: list[str] = []
    with files.disk_errors("scan", path):
        directories = files.directory_names(path)
        for name in sorted(os.listdir(path)):
            if name in AREAS and name in directories:
                found += _strays_in(os.path.join(path, name), name)
            elif name not in _EMPTY_FILES and not _is_temporary(name):
                found.append(os.path.join(path, name))
    return found


def _strays_in(directory: str, area: str) -> Iterator[str]:
    if area == QUARANTINE:
        return  # anything may lie there
    for entry in files.entries(directory):
        is_ours = entry.is_dir(follow_symlinks=False)
        if is_ours and area == journal.DIRECTORY:
            is_ours = ids.started_at(directory_lock.stream_of(entry.name)) is not None
        if not is_ours:
            yield os.path.join(directory, entry.name)


def queues(dlq_dir: str) -> list[str]:
    """Return the directories in DLQ_DIR that have files: itself, and the servers', oldest first.

    Earlier versions kept their files in DLQ_DIR. One server's directory may be named, too.
    """
    servers = os.path.join(dlq_dir, SERVERS)
    named = [os.path.join(servers, name) for name in directory_lock.streams(servers)]
    return [path for path in (dlq_dir, *named) if has_areas(path)]


def has_areas(path: str) -> bool:
    """Tell whether a directory has the directories of a dead letter queue in it, or some."""
    return not set(AREAS).isdisjoint(files.directory_names(path))


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(files.TEMPORARY)


def _beginning(path: str) -> bytes:
    descriptor = files.open_file(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, _LINE_BYTES, 0)
    finally:
        os.close(descriptor)


def _next_name(name: str) -> str:
    """Return the name of a directory once it is taken, and taken again."""
    server, _, number = name.partition(".")
    return f"{server}.{int(number) + 1 if number.isdecimal() else 1}"


def _may_be_dead(path: str) -> bool:
    """Tell whether a server is dead if its lock is free. Raises OSError."""
    sign = sign_of(path)
    if sign.released or (sign.boot and sign.boot == boot_id()):
        return True
    servers = os.path.dirname(path)
    os.utime(servers)
    # a time in the future counts as one in the past: the clock was ahead
    return abs(os.stat(servers).st_mtime - max(_times(path), default=0.0)) >= SILENCE_SECONDS


def _times(path: str) -> Iterator[float]:
    """Yield when a server wrote its lock; without one, when anything in it was made or removed."""
    with contextlib.suppress(FileNotFoundError):
        yield os.lstat(os.path.join(path, LOCK)).st_mtime
        with contextlib.suppress(FileNotFoundError):
            yield os.lstat(os.path.join(path, _HEARTBEAT)).st_mtime
        return
    for place, _, _ in os.walk(path):
        yield os.lstat(place).st_mtime


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
