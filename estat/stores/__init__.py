"""Where objects go: S3 or a local directory, behind one narrow interface.

``put`` of a taken key raises ObjectExists, and ``delivery`` then compares ids; only
an object that turned out to be cut off is replaced, and only as it was read. Every
method raises StoreError of the class that says what to do next, and may block its
greenlet (never the event loop).
"""

import os
from collections.abc import Iterable

from estat.config.parsers import BUCKET_SETTINGS
from estat.config.settings import Settings
from estat.errors import NotOurs, StoreError, StoreUnavailable
from estat.stores.directory import DirectoryStore
from estat.stores.store import Store

_FILE = "file:"


class Stores:
    """Opens each bucket once: the configured one and those that DLQ files name.

    A directory is opened only if the settings or ``also`` name it: else whoever can write a
    DLQ file could make the server write files anywhere.
    """

    def __init__(self, settings: Settings, also: Iterable[str] = ()) -> None:
        self._settings = settings
        named = (settings.raw_bucket, settings.fallback_bucket, *also)
        self._directories = {_real(bucket) for bucket in named if bucket.startswith(_FILE)}
        self._open: dict[str, Store] = {}

    def check(self, bucket: str) -> None:
        """Raise NotOurs for a directory that may not be written to."""
        if bucket.startswith(_FILE) and _real(bucket) not in self._directories:
            raise NotOurs(
                f"its bucket {ascii(bucket)[:200]} is no directory that RAW_BUCKET or "
                "FALLBACK_BUCKET names"
            )

    def get(self, bucket: str) -> Store:
        """Return the store of a bucket.

        Raises StoreError when it can't be opened, and NotOurs when it may not be. A failure is
        not kept: the next call tries again.
        """
        store = self._open.get(bucket)
        if store is None:
            self.check(bucket)
            try:
                store = self._open[bucket] = self._opened(bucket)
            except StoreError:
                raise
            except Exception as exc:  # boto3 raises what files, helpers and parsers below it do
                name = type(exc).__name__
                raise StoreUnavailable(f"can't open {bucket}: {name}: {exc}", code=name) from exc
        return store

    def _opened(self, bucket: str) -> Store:
        if bucket.startswith(_FILE):
            return DirectoryStore(bucket.removeprefix(_FILE))
        # boto3 takes 25 MB and a third of a second, which a local directory does not need
        from estat.stores.s3 import S3Store  # noqa: PLC0415

        settings = self._settings
        if bucket == settings.fallback_bucket:
            # it may be in another region and account, and must work when the role or the key fails
            settings = settings.without(*BUCKET_SETTINGS)
        return S3Store(bucket, settings)


def _real(bucket: str) -> str:
    """Return a directory's path without links; empty for what can be no path."""
    try:
        return os.path.realpath(bucket.removeprefix(_FILE))
    except (ValueError, OSError):  # a zero byte, or half a surrogate pair
        return ""
