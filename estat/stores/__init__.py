"""Where objects go: S3 or a local directory, behind one narrow interface.

An object is never replaced: ``put`` of a taken key raises ObjectExists, and
``delivery`` then compares ids. Every method raises StoreError of the class
that says what to do next, and may block its greenlet (never the event loop).
"""

from collections.abc import Iterator
from typing import Protocol

from estat.config import Settings
from estat.stores.directory import DirectoryStore


class Store(Protocol):
    """One bucket."""

    def put(
        self, key: str, body: bytes, crc32: int, content_type: str, metadata: dict[str, str]
    ) -> None:
        """Store an object, unless the key is taken. ``crc32`` is the body's."""

    def head(self, key: str) -> dict[str, str] | None:
        """Return an object's metadata; None if there is no such object."""

    def get(self, key: str) -> bytes:
        """Return an object's content."""

    def delete(self, key: str) -> None:
        """Remove an object; it need not exist."""

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` in order, from the first one behind ``after``.

        After an error the listing goes on behind the last key that it gave.
        """


class Stores:
    """Opens each bucket once: the configured one and those that DLQ files name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[str, Store] = {}

    def get(self, bucket: str) -> Store:
        """Return the store of a bucket. Raises StoreError when it can't be opened."""
        store = self._open.get(bucket)
        if store is None:
            store = self._open[bucket] = self._opened(bucket)
        return store

    def _opened(self, bucket: str) -> Store:
        if bucket.startswith("file:"):
            return DirectoryStore(bucket.removeprefix("file:"))
        # boto3 takes 25 MB and a third of a second, which a local directory does not need
        from estat.stores.s3 import S3Store  # noqa: PLC0415

        return S3Store(bucket, self._settings)
