"""A directory as a bucket: the same keys as paths, readable with zcat, DuckDB and pandas."""

import os
import re
from collections.abc import Iterator

from estat import files
from estat.encoder import gunzip
from estat.errors import DiskError, ObjectExists, StoreUnavailable
from estat.offload import Offload

_THREADS = 4

_ID = re.compile(rb'^\{"id":"([^"]+)"')


class DirectoryStore:
    """Objects as files below ``root``."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._threads = Offload(_THREADS)

    def put(
        self, key: str, body: bytes, crc32: int, content_type: str, metadata: dict[str, str]
    ) -> None:
        """Write the file, durably, unless it exists; a file has neither type nor metadata."""
        del crc32, content_type, metadata
        self._threads.run(self._write, key, body)

    def head(self, key: str) -> dict[str, str] | None:
        """Return what S3 would hold as metadata, read from the file's lines."""
        return self._threads.run(self._describe, key)

    def lacking(self, key: str) -> dict[str, str]:
        """Return nothing: a file is just a file, and no setting asks for more."""
        del key
        return {}

    def get(self, key: str) -> bytes:
        """Return the file's content."""
        return self._threads.run(self._read, key)

    def delete(self, key: str) -> None:
        """Remove the file if it is there."""
        self._threads.run(self._remove, key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the files' keys, one directory read at a time; half-written files are none."""
        directory = prefix.rpartition("/")[0]
        yield from self._below(directory, prefix, after)

    def _below(self, directory: str, prefix: str, after: str) -> Iterator[str]:
        for name in self._threads.run(_names, self._path(directory)):
            key = f"{directory}/{name}" if directory else name
            if not (key.startswith(prefix) or prefix.startswith(key)):
                continue
            if name.endswith("/"):
                if key > after or after.startswith(key):
                    yield from self._below(key.removesuffix("/"), prefix, after)
            elif key > after:
                yield key

    def _path(self, key: str) -> str:
        return os.path.join(self._root, *key.split("/"))

    def _write(self, key: str, body: bytes) -> None:
        try:
            files.write_whole(self._path(key), [body], replace=False)
        except FileExistsError as exc:
            self._make_durable(key)
            raise ObjectExists(key) from exc
        except DiskError as exc:
            raise StoreUnavailable(str(exc)) from exc

    def _read(self, key: str) -> bytes:
        try:
            with open(self._path(key), "rb") as file:
                return file.read()
        except OSError as exc:
            raise StoreUnavailable(f"read {key}: {exc.strerror}") from exc

    def _describe(self, key: str) -> dict[str, str] | None:
        if not os.path.exists(self._path(key)):
            return None
        self._make_durable(key)
        body = self._read(key)
        try:
            lines = gunzip(body).splitlines() if key.endswith(".gz") else []
        except ValueError as exc:
            raise StoreUnavailable(f"{key}: {exc}") from exc
        ids = [match[1].decode() for match in map(_ID.match, lines) if match]
        return {
            "events": str(len(ids)),
            "first-id": ids[0] if ids else "",
            "last-id": ids[-1] if ids else "",
        }

    def _make_durable(self, key: str) -> None:
        """Sync the name of a file that is there: its writer may be about to, or have failed to."""
        try:
            files.sync_directory(os.path.dirname(self._path(key)))
        except OSError as exc:
            raise StoreUnavailable(f"sync {key}: {exc.strerror}") from exc

    def _remove(self, key: str) -> None:
        try:
            os.unlink(self._path(key))
        except FileNotFoundError:
            return
        except OSError as exc:
            raise StoreUnavailable(f"delete {key}: {exc.strerror}") from exc


def _names(path: str) -> list[str]:
    """Read a directory: names in the order of keys, those of directories ending in a slash."""
    try:
        with os.scandir(path) as entries:
            return sorted(
                f"{entry.name}/" if entry.is_dir() else entry.name
                for entry in entries
                if not (entry.name.startswith(".") and entry.name.endswith(files.TEMPORARY))
            )
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise StoreUnavailable(f"list {path}: {exc.strerror}") from exc
