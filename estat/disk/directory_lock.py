"""The directory of one stream's journals, and the lock that says who may touch it.

    journal/<stream>/lock        held (flock) by the process that writes the journals,
                                 or by the one that recovers them after its death
    journal/<stream>/<seq>.journal
    journal/<stream>.<n>/…       the same, of another run of the server: taken over

The kernel frees the lock when its holder dies, however it dies. A new directory
gets its name only once it is locked, so nobody ever sees one without an owner
that has one. All calls block: use them through ``Offload``. They raise DiskError.
"""

import contextlib
import itertools
import os
import re
from typing import Self

from estat.disk import files, journal_file, locks
from estat.events import ids

LOCK = "lock"

_JOURNAL = re.compile(r"[0-9]{6,12}" + re.escape(journal_file.SUFFIX))

_HIDDEN = "."


class DirectoryLock:
    """The exclusive right to a stream's directory."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, root: str, stream: str, access: files.Access = files.PRIVATE) -> Self:
        """Make the directory of a new stream, locked and durable."""
        path = os.path.join(root, stream)
        made = cls(os.path.join(root, _HIDDEN + stream), -1)
        with files.disk_errors("create", path):
            files.make_directories(root, access)
            with contextlib.suppress(FileExistsError):  # an attempt that the disk refused
                os.mkdir(made.path, access.directory)
            try:
                made._descriptor = _lock(made.path)
                os.rename(made.path, path)
                made.path = path
                files.sync_directory(path)
                files.sync_directory(root)
            except OSError:
                made._remove()
                raise
        return made

    @property
    def held(self) -> bool:
        """Whether the directory is still there with this lock; True where that can't be known.

        False if somebody cleaned up: the stream then looks dead to others, and False once it is
        closed. Blocks.
        """
        if self._descriptor < 0:
            return False
        try:
            return locks.is_at(os.path.join(self.path, LOCK), self._descriptor)
        except OSError:
            return True

    @classmethod
    def adopt(cls, root: str, stream: str) -> Self | None:
        """Lock a stream whose owner is dead; None if the owner lives, or another was faster."""
        path = os.path.join(root, stream)
        with files.disk_errors("lock", path):
            try:
                return cls(path, _lock(path))
            except (FileNotFoundError, NotADirectoryError, BlockingIOError):
                return None

    def close(self) -> None:
        """Release the lock, and leave the directory as it is."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # a lock has nothing to write
                os.close(descriptor)

    def release(self) -> None:
        """Release the lock, and remove the directory if nothing else is left in it."""
        try:
            with files.disk_errors("scan", self.path):
                if self.held and os.listdir(self.path) == [LOCK]:
                    self._remove()
        finally:
            self.close()

    def _remove(self) -> None:
        # Before it is closed, or another could get it and have it taken away. But NFS keeps a
        # removed file in its directory until it is closed, so the directory goes after that.
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.path, LOCK))
        self.close()
        files.remove_empty(self.path)


def streams(root: str) -> list[str]:
    """Return the names of the streams' directories that have one, oldest first."""
    with files.disk_errors("scan", root):
        names = files.directory_names(root)
    return [name for name in names if is_stream(name) and not name.startswith(_HIDDEN)]


def is_stream(name: str) -> bool:
    """Tell whether a directory of this name is that of a stream, or was to be one."""
    return ids.started_at(stream_of(name)) is not None


def stream_of(name: str) -> str:
    """Return the stream whose directory has a name, or had one before it was locked."""
    return name.lstrip(_HIDDEN).partition(".")[0]


def is_taken_over(name: str) -> bool:
    """Tell whether what has a name, a stream or a server, was taken over from another run."""
    return "." in name.lstrip(_HIDDEN)


def hand_on(path: str, target: str, access: files.Access) -> None:
    """Move a stream, or a slot, of another run into a directory, under a name that says so.

    An empty one is removed.
    """
    files.remove_empty(path)
    if not os.path.isdir(path):
        return
    stem = stream_of(os.path.basename(path)) or "0"
    with files.disk_errors("rename", path):
        files.make_directories(target, access)
        names = (os.path.join(target, f"{stem}.{number}") for number in itertools.count(1))
        os.rename(path, next(name for name in names if not os.path.lexists(name)))
        files.sync_directory(target)
        files.sync_directory(os.path.dirname(path))


def journals(path: str) -> list[str]:
    """Return the paths of the journals in a stream's directory, oldest first; without links."""
    with files.disk_errors("scan", path):
        names = sorted(files.file_names(path))
    return [os.path.join(path, name) for name in names if _JOURNAL.fullmatch(name)]


def _lock(path: str) -> int:
    return locks.lock(os.path.join(path, LOCK), create=True)
