"""Finds out, for ``estat check``, in which way a store does not do what it says.

It writes one object such as the server writes, and asks for it in each way in which the server
and the commands do. Each finding says what the store does, what that costs, and what to do.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TypeVar

from estat.cli import refusals
from estat.config.settings import Settings
from estat.errors import UNPROVEN, ObjectExists, StoreDenied, StoreError, StoreUnavailable
from estat.events import gzip, ids, stored_line
from estat.events.batch import Batch, crc32_of
from estat.stores.store import Head, Store

#: Status (ok, warn or FAIL), subject and text of a line.
Finding = tuple[str, str, str]

T = TypeVar("T")

#: Their lines make over 32 KiB of gzip: a proxy's smallest buffers do not hold it.
_EVENTS = 1000
_RANDOM_BYTES = 32

#: How long to wait for a store that shows only later what it has.
_LAG_SECONDS, _LOOK_SECONDS = 3.0, 0.25

_COSTS_A_HEAD = (
    "its answers name neither the CRC-32 nor the MD5 of what was sent: "
    "each PUT costs a HEAD, which proves that the object is stored"
)
_TAKES_ANY_CHECKSUM = (
    "it takes a wrong checksum, and its answers prove nothing: what is damaged on its way at the "
    "same length counts as stored; send over https, which does not let that happen"
)
_DROPS_METADATA = (
    "it drops the metadata of objects: an object that is found under a batch's key is read, and "
    "estat audit reads every one; have the proxy pass x-amz-meta-…, or use a store that keeps it"
)
_EACH_BATCH_TWICE = "so each batch is sent twice, and then read"
_CUTS = (
    "it keeps the beginning of what it is sent: each batch is sent again until it is whole, or "
    "waits in the DLQ; look for a limit of sizes in the store and whatever stands before it"
)
_DAMAGES = (
    "it keeps other bytes than it is sent: each batch is sent again until it is whole, or waits "
    "in the DLQ; look for what changes bodies in the store and whatever stands before it"
)
_WRONG_CHECKSUM = (
    "the object is whole, the checksum is that of something else: each batch is sent twice, and "
    "then read; have the proxy leave x-amz-checksum-crc32 alone, or use another store"
)
_REPLACES = (
    "the store replaces objects despite If-None-Match; the server looks before it "
    "replays, but keep other writers away from RAW_PREFIX"
)
_REPLACES_ANY = (
    "it replaces objects despite If-Match: of two that repair one object at once, one undoes what "
    "the other did; do not replay a copy of a DLQ directory beside its server"
)
_BARE_ETAGS = (
    "it compares If-Match with its ETag less the quotes (as Ceph's gateway does): to replace an "
    "object that was cut off costs one request more; there is nothing to do"
)
_REPLAYED_TWICE = "a replay that comes sooner sends again what is stored; there is nothing to do"
_DOES_NOT_REPLACE = (
    "an object that was cut off is not replaced, and its batch waits in the DLQ; allow If-Match in "
    "the bucket's policy, or remove by hand the objects that dlq_file_deferred tells of"
)


def probe(settings: Settings) -> Batch:
    """Return a batch for the bucket, under DLQ_PREFIX: no reader takes its lines for events."""
    stream, now = ids.new_stream(), time.time()
    bodies = [b'"%b"' % os.urandom(_RANDOM_BYTES).hex().encode() for _ in range(_EVENTS)]
    payload = gzip.gzip(b"".join(stored_line.stamped(stream, 1, now, [(b',"body":', bodies)])))
    name = f".check-{stream}"
    return Batch(
        bucket=settings.raw_bucket,
        key=f"{settings.dlq_prefix}/{name}{ids.SUFFIX}",
        name=name,
        stream=stream,
        first=1,
        last=_EVENTS,
        events=_EVENTS,
        payload=payload,
        crc32=crc32_of(payload),
        opened=now,
    )


def put(store: Store, batch: Batch, replaces: str | None = None) -> bool:
    """Write a batch as the server does; return what ``Store.put`` returns. Raises StoreError."""
    return store.put(
        batch.key, batch.payload, batch.crc32, batch.content_type, batch.metadata, replaces
    )


def why_unproven(store: Store, batch: Batch) -> str:
    """Return why a 2xx proved nothing, and what to do. Raises StoreError."""
    head, seconds = _awaited(lambda: store.head(batch.key))
    if head is None:
        return refusals.NO_STORE
    kept = store.get(batch.key)
    if kept and kept != batch.payload and batch.payload.startswith(kept):
        return _CUTS
    if kept != batch.payload:
        return _DAMAGES if len(kept) == len(batch.payload) else refusals.NO_STORE
    if not _described(head, batch):
        return f"{_DROPS_METADATA}; nor do its answers prove anything, {_EACH_BATCH_TWICE}"
    if seconds:
        return f"{_lags('a HEAD finds it', seconds)}: nothing else proves it, {_EACH_BATCH_TWICE}"
    return _WRONG_CHECKSUM


def findings(
    settings: Settings, store: Store, batch: Batch, *, by_answer: bool
) -> Iterator[Finding]:
    """Look at a batch that was written; ``by_answer`` is what the PUT returned."""
    if not by_answer:
        yield "warn", "bucket", _COSTS_A_HEAD
        if _takes_any_checksum(store, batch):
            yield "warn", "bucket", _TAKES_ANY_CHECKSUM
    try:
        head = yield from _look(store, batch)
        if store.get(batch.key) != batch.payload:
            raise StoreDenied("what was read is not what was written", code=UNPROVEN)
        if settings.s3_conditional_put:
            yield from _try_conditions(store, batch, head)
    except StoreError as exc:
        text = f"can't read it back: {exc}; {refusals.explain_read(settings, exc)}"
        yield "FAIL", "bucket", text
        return
    yield "ok", "bucket", "read it back"
    yield from _list(store, batch.key)


def remove(store: Store, key: str) -> Finding:
    """Remove the object."""
    try:
        store.delete(key)
    except StoreError as exc:
        remedy = f"remove {key} by hand; only this check needs it"
        return "FAIL", "bucket", f"can't remove it: {exc}; {remedy}"
    return "ok", "bucket", "removed it"


def _look(store: Store, batch: Batch) -> Generator[Finding, None, Head]:
    head, seconds = _awaited(lambda: store.head(batch.key))
    if head is None:
        raise StoreDenied("a HEAD does not find it", code=UNPROVEN)
    if head.size_bytes != len(batch.payload):
        text = f"a HEAD tells of {head.size_bytes} bytes, {len(batch.payload)} were written"
        raise StoreDenied(text, code=UNPROVEN)
    if seconds:
        yield "warn", "bucket", f"{_lags('a HEAD finds it', seconds)}: {_REPLAYED_TWICE}"
    if not _described(head, batch):
        yield "warn", "bucket", _DROPS_METADATA
    return head


def _try_conditions(store: Store, batch: Batch, head: Head) -> Iterator[Finding]:
    """Write it again, on conditions that do not hold and on one that does."""
    try:
        put(store, batch)
    except ObjectExists:
        pass  # as it should be
    else:
        yield "warn", "bucket", _REPLACES
        head = store.head(batch.key) or head
    try:
        if _is_replaced(store, batch, '"' + "0" * 32 + '"'):
            yield "warn", "bucket", _REPLACES_ANY
        elif not _is_replaced(store, batch, head.etag):
            yield "warn", "bucket", f"it does not know its own ETag: {_DOES_NOT_REPLACE}"
        elif store.bare_etags:
            yield "ok", "bucket", _BARE_ETAGS
    except StoreError as exc:
        yield "warn", "bucket", f"it does not take If-Match ({exc}): {_DOES_NOT_REPLACE}"


def _is_replaced(store: Store, batch: Batch, etag: str) -> bool:
    """Try to replace the object if it has this ETag."""
    try:
        put(store, batch, etag)
    except StoreUnavailable:
        return False
    return True


def _takes_any_checksum(store: Store, batch: Batch) -> bool:
    """Try another object with a checksum that is not its own."""
    other = replace(batch, key=ids.rest_key(batch.key, 1), crc32=batch.crc32 ^ 1)
    try:
        put(store, other)
    except StoreError:
        return False
    finally:
        remove(store, other.key)
    return True


def _list(store: Store, key: str) -> Iterator[Finding]:
    try:
        found, seconds = _awaited(lambda: key in store.list(key) or None)
    except StoreDenied:
        yield "ok", "bucket", "not listed: that takes s3:ListBucket, which only estat audit needs"
        return
    except StoreError as exc:
        yield "warn", "bucket", f"can't list it: {exc}; only estat audit needs that"
        return
    if seconds:
        lags = _lags("a listing names it", seconds) if found else "no listing names it"
        text = f"{lags}: estat audit takes what is missing there for gaps; audit what is long over"
        yield "warn", "bucket", text


def _awaited(look: Callable[[], T | None]) -> tuple[T | None, float]:
    """Look until something is found; return it, or None, and the seconds that it took to show."""
    started = time.monotonic()
    found, seconds = look(), 0.0
    while found is None and seconds < _LAG_SECONDS:
        time.sleep(_LOOK_SECONDS)
        found, seconds = look(), time.monotonic() - started
    return found, seconds


def _lags(what: str, seconds: float) -> str:
    return f"{what} only after {seconds:.1f}s"


def _described(head: Head, batch: Batch) -> bool:
    return batch.metadata.items() <= head.metadata.items()
