"""A directory as a bucket: the same keys as paths, readable with zcat, DuckDB and pandas.

A file is stored once it is written, synced and has its name. If a file is nevertheless no whole
gzip, the disk did not keep what it had synced, or a copy was interrupted. It has no metadata
then, so whoever asks for it has to read it. Below the directory no link is followed, and only
regular files are objects (see ``files``).
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from estat.disk import files, locks, whole_file
from estat.errors import DiskError, NotOurs, ObjectExists, ObjectRefused, StoreUnavailable
from estat.events import ids
from estat.events.gzip import gunzip_lines
from estat.stores.store import BYTES, Head
from estat.threads import Offload

_THREADS = 4

T = TypeVar("T")


class DirectoryStore:
    """Objects as files below ``root``."""

    bare_etags = False  # there are no quotes

    def __init__(self, root: str) -> None:
        self._root = root
        self._threads = Offload(_THREADS)

    def put(
        self,
        key: str,
        body: bytes,
        crc32: int,
        content_type: str,
        metadata: dict[str, str],
        replaces: str | None = None,
    ) -> bool:
        """Write the file, durably, unless it exists; a file has neither type nor metadata."""
        del crc32, content_type, metadata
        if replaces is not None:
            self._run(self._replace, key, body, replaces)
        elif not self._run(whole_file.write_new, self._path(key), [body], files.BY_UMASK):
            raise ObjectExists(key)
        return True

    def head(self, key: str) -> Head | None:
        """Return what S3 would hold as metadata, read from the file's lines."""
        return self._run(self._describe, key)

    def lacking(self, key: str) -> dict[str, str]:
        """Return nothing: a file is just a file, and no setting asks for more."""
        del key
        return {}

    def get(self, key: str) -> bytes:
        """Return the file's content."""
        return self._run(files.read_whole, self._path(key))

    def delete(self, key: str) -> None:
        """Remove the file if it is there."""
        self._run(files.remove, self._path(key))

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the files' keys, one directory read at a time, without half-written files."""
        directory = prefix.rpartition("/")[0]
        for name in self._run(_names, self._path(directory)):
            key = f"{directory}/{name}" if directory else name
            if not key.startswith(prefix):
                continue
            if name.endswith("/"):
                if key > after or after.startswith(key):
                    yield from self.list(key, after)
            elif key > after:
                yield key

    def _run(self, work: Callable[..., T], *args: object) -> T:
        """Run work in a thread. A disk that refuses is a store that is away."""
        try:
            return self._threads.run(work, *args)
        except (DiskError, OSError, NotOurs) as exc:
            # what somebody has put in the place of one object is no reason to stop the others
            if isinstance(exc, NotOurs) or files.NotFollowed in (type(exc), type(exc.__cause__)):
                raise ObjectRefused(str(exc)) from exc
            raise StoreUnavailable(str(exc)) from exc

    def _path(self, key: str) -> str:
        if not ids.is_within(key):
            raise ObjectRefused(f"{key!r:.200} is no key in a directory")
        return os.path.join(self._root, *key.split("/"))

    def _replace(self, key: str, body: bytes, etag: str) -> None:
        """Replace a file that is still the one that was read. One does so at a time."""
        path = self._path(key)
        directory, name = os.path.split(path)
        fresh = os.path.join(directory, files.temporary_name(name))
        lock = locks.lock(path)
        try:
            if _etag(os.fstat(lock)) != etag:
                raise StoreUnavailable(f"{key} changed since it was read")
            whole_file.write(fresh, [body], files.BY_UMASK)
            os.rename(fresh, path)
            files.sync_directory(directory)
        finally:
            os.close(lock)
            files.remove(fresh)

    def _describe(self, key: str) -> Head | None:
        path = self._path(key)
        try:
            descriptor = files.open_file(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        found = os.fstat(descriptor)
        try:
            body = files.read_open(descriptor)
        except NotOurs:  # too large
            return Head({}, found.st_size, _etag(found))
        # its writer may be about to sync its name, or have failed to
        files.sync_directory(os.path.dirname(path))
        return Head(_metadata(key, body), len(body), _etag(found))


def _etag(found: os.stat_result) -> str:
    """Return what changes whenever a file is replaced or written to."""
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def _metadata(key: str, body: bytes) -> dict[str, str]:
    """Return what a file's lines say of it; nothing if it is cut off."""
    first = last = None
    events = 0
    line = b""
    try:
        for line in gunzip_lines(body) if key.endswith(".gz") else body.splitlines(keepends=True):
            event_id = ids.id_of_line(line)
            if event_id:
                first, last = first or event_id, event_id
                events += 1
    except ValueError:
        return {}
    if not line.endswith(b"\n"):
        return {}
    return {
        "events": str(events),
        "first-id": str(first or ""),
        "last-id": str(last or ""),
        BYTES: str(len(body)),
    }


def _names(path: str) -> list[str]:
    """Read a directory: names in the order of keys, those of directories ending in a slash.

    Links, FIFOs and the like are no objects.
    """
    with contextlib.suppress(FileNotFoundError):
        return sorted(
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in files.entries(path)
            if (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False))
            and not (entry.name.startswith(".") and entry.name.endswith(files.TEMPORARY))
        )
    return []
