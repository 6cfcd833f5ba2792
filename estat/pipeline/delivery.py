"""Brings one batch to its store exactly once: the rule that every upload goes through.

A batch has one key for ever. If the key is taken, an earlier attempt was stored after
all, whole or in part, or a previous run stored a part of the batch. Then the ids in the
object are compared with the batch's: events that it lacks are uploaded beside it as
``…-r1``, ``…-r2``. Only an object that was cut off is replaced, by one that has its lines too
(see ``found_object``). Ids are compared, never gzip bytes.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import gevent
from gevent.event import Event
from greenlet import greenlet

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.errors import (
    NotOurs,
    ObjectDamaged,
    ObjectExists,
    ObjectRefused,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from estat.events import gzip, ids
from estat.events.batch import BINARY, JSON, Batch, crc32_of
from estat.pipeline import found_object
from estat.pipeline.breaker import Breaker
from estat.stores import Stores
from estat.stores.store import Head, Store
from estat.threads import Offload

T = TypeVar("T")

#: A batch in more pieces than this is not ours: give up instead of asking for ever.
_MAX_RESTS = 100


class Delivery:
    """Stores batches, one attempt a call, each within ``timeout_seconds``."""

    def __init__(
        self, stores: Stores, bucket: str, timeout_seconds: float, counts: Metrics
    ) -> None:
        #: Driven by ``bucket`` alone: DLQ files may name another.
        self.breaker = Breaker(counts)
        #: Called for each batch that is stored, before what is left of it on disk may go.
        self.on_stored: Callable[..., object] = lambda _batch, **_: None
        self._stores = stores
        self._bucket = bucket
        self._timeout_seconds = timeout_seconds
        self._counts = counts
        self._until: float | None = None
        self._cutter: Any = None
        self._ended = Event()  # set when attempts may last no longer
        self._running: dict[gevent.Timeout, greenlet] = {}
        self._threads = Offload(1)  # compares a batch with an object
        self._doubted: set[str] = set()  # keys whose objects' metadata proves nothing

    def attempt(self, batch: Batch, *, recovered: bool = False) -> None:
        """Make one attempt. It returns when every event of the batch is proven to be stored.

        ``recovered`` says that the batch was read from disk: a previous run may
        have stored it, and not every store honours If-None-Match, so each object
        is looked up first. Raises StoreError.
        """
        try:
            self._attempt(batch, recovered)
        except StoreError as exc:
            self._counts.count(metrics.PUT_ERRORS)
            # a replay's failure may be its file's own fault
            if batch.bucket == self._bucket and not recovered:
                self.breaker.failed(exc, batch.key)
            raise
        if batch.bucket == self._bucket:
            self.breaker.worked()
        self.on_stored(batch, at_once=recovered)
        now = time.time()
        for second, events in batch.accepted_at or ((batch.opened, batch.events),):
            self._counts.observe(metrics.LAG_SECONDS, max(0.0, now - second), events)

    def put_file(self, bucket: str, key: str, body: bytes, content_type: str = BINARY) -> None:
        """Store a file as it is, for a person to look at. Raises StoreError."""
        crc32 = crc32_of(body)

        def put(replaces: str | None) -> None:
            self._proven(key, lambda: store.put(key, body, crc32, content_type, {}, replaces))

        try:
            store = self._bounded(lambda: self._stores.get(bucket))
            try:
                put(None)
            except ObjectExists:  # an earlier attempt landed, or a part of it did
                cut_off = self._cut_off(store, key, body)
                if cut_off:
                    put(cut_off.etag)
        except StoreError:
            self._counts.count(metrics.PUT_ERRORS)
            raise

    def rewrite(
        self, bucket: str, key: str, change: Callable[[bytes | None], bytes | None]
    ) -> None:
        """Make one attempt to replace a small object of JSON by what ``change`` makes of it.

        ``change`` is given None where there is none, and returns None to leave it as it is. The
        breaker takes no notice. Raises StoreError, also if somebody else has changed it meanwhile.
        """
        store = self._bounded(lambda: self._stores.get(bucket))
        head = self._look(store, key)
        body = change(self._bounded(lambda: store.get(key)) if head else None)
        if body is not None:
            etag = head and head.etag
            crc32 = crc32_of(body)
            self._bounded(lambda: store.put(key, body, crc32, JSON, {}, etag))

    def end_attempts(self, at: float) -> None:
        """Let no attempt last beyond ``at`` (``time.monotonic``); running ones end by then too."""
        self._until = at
        if at > time.monotonic():
            self._ended.clear()
        if self._cutter:
            self._cutter.stop()  # the newer end replaces the older one
        # thrown by the hub, as gevent's own timeouts are
        self._cutter = gevent.get_hub().loop.timer(max(0.0, at - time.monotonic()))
        self._cutter.start(self._cut, list(self._running.items()))

    def pause(self, seconds: float) -> None:
        """Wait between attempts, but no longer than they may last."""
        if not self.over:
            self._ended.wait(seconds)

    @property
    def over(self) -> bool:
        """Whether the time for attempts has ended."""
        return self._until is not None and time.monotonic() >= self._until

    def _cut(self, running: list[tuple[gevent.Timeout, greenlet]]) -> None:
        self._ended.set()
        for timeout, waiting in running:
            if timeout in self._running:
                waiting.throw(timeout)

    def _bounded(self, work: Callable[[], T]) -> T:
        """Run ``work`` within the deadline. Raises StoreUnavailable when that passes."""
        seconds = self._timeout_seconds
        if self._until is not None:
            seconds = min(seconds, self._until - time.monotonic())
            if seconds <= 0:
                raise StoreUnavailable("no time left")
        # the plain form: botocore's own handlers let a BaseException through, and the
        # connection is closed, its slot returned
        timeout = gevent.Timeout.start_new(seconds)
        self._running[timeout] = gevent.getcurrent()
        try:
            return work()
        except gevent.Timeout as exc:
            if exc is not timeout:
                raise
            raise StoreUnavailable(f"no answer within {seconds:.3g}s") from exc
        except (NotOurs, StoreError):
            raise
        except Exception as exc:  # a store that is at fault is away, whatever it raised
            name = type(exc).__name__
            raise StoreUnavailable(f"{name}: {exc}", code=name) from exc
        finally:
            del self._running[timeout]
            timeout.close()

    def _attempt(self, batch: Batch, recovered: bool) -> None:
        store = self._bounded(lambda: self._stores.get(batch.bucket))
        key = batch.key
        for number in range(1, _MAX_RESTS):
            head = self._look(store, key) if recovered else None
            if head is None:
                try:
                    return self._put(store, replace(batch, key=key))
                except ObjectExists:
                    head = self._found(store, key)
                except ObjectRefused as exc:
                    if not recovered:
                        self._check_answers(store, key, exc)
                    raise
            rest = self._settle(store, key, head, batch)
            if rest is None:
                return None
            batch, key = rest, ids.rest_key(rest.key, number)
        raise StoreDenied(f"{batch.key} is taken by other events")

    def _look(self, store: Store, key: str) -> Head | None:
        """Return what is at ``key``; None if nothing is, or if that can't be told."""
        try:
            return self._bounded(lambda: store.head(key))
        except StoreDenied as exc:
            if not exc.is_answer:
                raise
            # without s3:ListBucket, HEAD of a missing key is answered with 403:
            # If-None-Match alone has to tell
            return None

    def _check_answers(self, store: Store, key: str, refusal: ObjectRefused) -> None:
        """Raise StoreUnavailable if a store that refused an object refuses every request."""
        try:
            self._look(store, key)
        except StoreUnavailable as exc:
            text = f"{refusal}; nor does the store answer a HEAD: {exc}"
            raise StoreUnavailable(text, exc.operation, exc.code) from exc

    def _found(self, store: Store, key: str) -> Head:
        """Return what is at a key that is taken."""
        head = self._bounded(lambda: store.head(key))
        if head is None:
            raise StoreUnavailable(f"{key} is taken and then not there")
        return head

    def _put(self, store: Store, batch: Batch, replaces: str | None = None) -> None:
        body, crc32 = batch.payload, batch.crc32
        if not batch.key.endswith(ids.SUFFIX):
            body = gzip.gunzip(batch.payload)
            crc32 = crc32_of(body)
        started = time.perf_counter()
        try:
            self._proven(
                batch.key,
                lambda: store.put(
                    batch.key, body, crc32, batch.content_type, batch.metadata, replaces
                ),
            )
        finally:
            self._counts.observe(metrics.PUT_SECONDS, time.perf_counter() - started)

    def _proven(self, key: str, put: Callable[[], object]) -> None:
        """PUT within the deadline; remember a key of which the store says that it is damaged."""
        try:
            self._bounded(put)
        except ObjectDamaged:
            self._doubted.add(key)
            raise
        self._doubted.discard(key)

    def _cut_off(self, store: Store, key: str, body: bytes) -> Head | None:
        """Return what is at the key of a file if that is not all of it."""
        head = self._found(store, key)
        if (
            head.whole
            and head.size_bytes == len(body)
            and not self._threads.run(head.may_differ_from, body)
            and key not in self._doubted
        ):
            return None
        there = self._bounded(lambda: store.get(key))
        if there == body:
            return None
        if not found_object.is_cut_off(there, body):
            raise ObjectRefused(f"{key} is taken by something else")
        return head

    def _settle(self, store: Store, key: str, head: Head, batch: Batch) -> Batch | None:
        """Return what of a batch is still to be stored beside the object at ``key``, if anything.

        An object that was cut off is replaced, and has everything then.
        """
        # in a thread, for it may take the MD5 of all of the batch
        if key not in self._doubted and self._threads.run(found_object.covers, head, batch):
            return None
        body = self._bounded(lambda: store.get(key))
        finding = self._threads.run(found_object.compare, body, batch)
        if finding.union:
            self._put(store, replace(finding.union, key=key), head.etag)
        self._doubted.discard(key)
        return finding.rest
