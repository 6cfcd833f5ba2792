"""Where objects go: S3 or a local directory, behind one narrow interface.

``put`` of a taken key raises ObjectExists, and ``delivery`` then compares ids; only
an object that turned out to be cut off is replaced, and only as it was read. Every
method raises StoreError of the class that says what to do next, and may block its
greenlet (never the event loop).
"""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from estat.config.parsers import BUCKET_SETTINGS
from estat.config.settings import Settings
from estat.errors import NotOurs, StoreError, StoreUnavailable
from estat.stores.directory import DirectoryStore
from estat.stores.store import Store

if TYPE_CHECKING:
    from estat.stores.s3_credentials import Credentials

_FILE = "file:"

#: How long a command waits for the first credentials: until their fetch ends by itself.
PATIENT_SECONDS = 60.0


class Stores:
    """Opens each bucket once: the configured one and those that DLQ files name.

    A directory is opened only if the settings or ``also`` name it: else whoever can write a
    DLQ file could make the server write files anywhere. Opening waits for nobody; a request to
    S3 waits ``wait_seconds`` for the first credentials.
    """

    def __init__(
        self, settings: Settings, also: Iterable[str] = (), wait_seconds: float = PATIENT_SECONDS
    ) -> None:
        self._settings = settings
        self._wait_seconds = wait_seconds
        self._credentials: dict[str, Credentials] = {}  # by the role
        self._on_credentials: Callable[[], object] = lambda: None
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

    def start(self, on_credentials: Callable[[], object]) -> None:
        """Begin to fetch the credentials for the settings' buckets; return at once.

        ``on_credentials`` is called whenever there are some after there were none.
        """
        self._on_credentials = on_credentials
        # the fallback first: what it needs comes first on the way to a role, which may hang
        for bucket in filter(None, (self._settings.fallback_bucket, self._settings.raw_bucket)):
            self.credentials(bucket)

    def credentials(self, bucket: str) -> "Credentials | None":
        """Return what requests to a bucket are signed with; None for a directory."""
        if bucket.startswith(_FILE):
            return None
        # boto3 takes 25 MB and a third of a second, which a local directory does not need
        from estat.stores.s3_credentials import Credentials  # noqa: PLC0415

        settings = self._settings_of(bucket)
        found = self._credentials.get(settings.s3_role_arn)
        if found is None:
            found = Credentials(settings, self._on_credentials)
            self._credentials[settings.s3_role_arn] = found
            found.start()  # which yields: others must find it by then
        return found

    @property
    def lack_credentials(self) -> bool:
        """Whether nothing can be signed now for a bucket that is in use."""
        return any(credentials.missing for credentials in self._credentials.values())

    def close(self) -> None:
        """End the fetches of credentials that are under way."""
        for credentials in self._credentials.values():
            credentials.close()

    def _opened(self, bucket: str) -> Store:
        credentials = self.credentials(bucket)
        if credentials is None:
            return DirectoryStore(_real(bucket))
        from estat.stores.s3 import S3Store  # noqa: PLC0415 - see above

        return S3Store(bucket, self._settings_of(bucket), credentials, self._wait_seconds)

    def _settings_of(self, bucket: str) -> Settings:
        if bucket == self._settings.fallback_bucket:
            # it may be in another region and account, and must work when the role or the key fails
            return self._settings.without(*BUCKET_SETTINGS)
        return self._settings


def _real(bucket: str) -> str:
    """Return a directory's path without links; empty for what can be no path."""
    try:
        return os.path.realpath(bucket.removeprefix(_FILE))
    except (ValueError, OSError):  # a zero byte, or half a surrogate pair
        return ""
