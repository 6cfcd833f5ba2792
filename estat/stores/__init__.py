"""Where objects go: S3 or a local directory, behind one narrow interface.

``put`` of a taken key raises ObjectExists, and ``delivery`` then compares ids; only
an object that turned out to be cut off is replaced, and only as it was read. Every
method raises StoreError of the class that says what to do next, and may block its
greenlet (never the event loop).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

from estat.bucket_values import NAMES
from estat.errors import StoreError, StoreUnavailable
from estat.settings import Settings
from estat.stores.directory import DirectoryStore
from estat.stores.head import Head


class Store(Protocol):
    """One bucket."""

    def put(
        self,
        key: str,
        body: bytes,
        crc32: int,
        content_type: str,
        metadata: dict[str, str],
        replaces: str | None = None,
    ) -> bool:
        """Store an object, and return only when it is proven to be there.

        ``crc32`` is the body's; to the metadata comes ``bytes``, its length. With ``replaces``,
        the ETag of an object that was found there, that one is replaced.

        Returns whether the store's answer was proof enough; else it took another request.
        Raises ObjectExists if the key is taken, StoreUnavailable if what ``replaces`` names
        is not there any more, or if the store said yes and nothing proves that it stored,
        ObjectDamaged if it says that it holds other bytes.
        """

    def head(self, key: str) -> Head | None:
        """Return what is known of an object without its content; None if there is none."""

    def lacking(self, key: str) -> dict[str, str]:
        """Compare an object with what the settings ask for; return what is not so, by setting."""

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
        """Return the store of a bucket. Raises StoreError when it can't be opened.

        A failure is not kept: the next call tries again.
        """
        store = self._open.get(bucket)
        if store is None:
            try:
                store = self._open[bucket] = self._opened(bucket)
            except StoreError:
                raise
            except Exception as exc:  # boto3 raises what files, helpers and parsers below it do
                name = type(exc).__name__
                raise StoreUnavailable(f"can't open {bucket}: {name}: {exc}", code=name) from exc
        return store

    def _opened(self, bucket: str) -> Store:
        if bucket.startswith("file:"):
            return DirectoryStore(bucket.removeprefix("file:"))
        # boto3 takes 25 MB and a third of a second, which a local directory does not need
        from estat.stores.s3 import S3Store  # noqa: PLC0415

        settings = self._settings
        if bucket == settings.fallback_bucket:
            # its region and account may be others, and it is there for when the role or the key
            # fails
            settings = without(settings, *NAMES)
        return S3Store(bucket, settings)


def without(settings: Settings, *names: str) -> Settings:
    """Return the settings with some of those of the bucket (see ``bucket_values``) not set."""
    unset: dict[str, Any] = dict.fromkeys((name.lower() for name in names), "")
    return replace(settings, **unset)
