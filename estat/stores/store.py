"""What every store does, what it tells of an object, and when to try it again."""

import hashlib
import random
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

#: The metadata in which every PUT names the length of the object.
BYTES = "bytes"

# an ETag that may be an MD5; those of multipart uploads end in "-<parts>"
_MD5 = re.compile(r'"?([0-9a-fA-F]{32})"?')


def is_md5(etag: str, body: bytes) -> bool | None:
    """Tell whether an ETag is the MD5 of ``body``; None if it does not look like an MD5.

    Takes some 2 ms a MiB: with a large body it belongs in a thread.
    """
    match = _MD5.fullmatch(etag)
    if not match:
        return None
    return match[1].lower() == hashlib.md5(body, usedforsecurity=False).hexdigest()


class Head(NamedTuple):
    """One object, as HEAD describes it."""

    metadata: dict[str, str]  # names in lower case
    size_bytes: int  # -1 if the store does not tell
    etag: str  # as the store wrote it, quotes and all; empty if it names none

    @property
    def whole(self) -> bool:
        """Whether the object has the length that its metadata names.

        Of one that names none nothing is known: it must be read.
        """
        return self.metadata.get(BYTES) == str(self.size_bytes)

    def may_differ_from(self, body: bytes) -> bool:
        """Tell whether the ETag looks like an MD5 and is not that of ``body``.

        Then it is that of other bytes, or none: of a store that encrypts.
        """
        return is_md5(self.etag, body) is False


class Store(Protocol):
    """One bucket."""

    #: Whether the last object that was replaced took its ETag without quotes.
    bare_etags: bool

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
        """Return what an object has instead of what the settings ask for, by setting."""

    def get(self, key: str) -> bytes:
        """Return an object's content. Raises ObjectRefused for one too large to be a batch."""

    def delete(self, key: str) -> None:
        """Remove an object; it need not exist."""

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` in order, from the first one behind ``after``.

        After an error the listing goes on behind the last key that it gave.
        """


def full_jitter(attempt: int, base_seconds: float, cap_seconds: float) -> float:
    """Return the seconds to wait after failed attempt number ``attempt`` (from 0).

    Exponential with full jitter, which spreads the attempts of many workers best; see
    "Exponential Backoff and Jitter" on the AWS Architecture Blog.
    """
    # the exponent is bounded: a long outage must not compute huge powers
    return random.uniform(0, min(cap_seconds, base_seconds * 2 ** min(attempt, 32)))
