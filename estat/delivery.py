"""Brings one batch to its store exactly once: the rule that every upload goes through.

A batch has one key for ever, and ``put`` never replaces an object. A taken key
means that an earlier attempt landed after all, or that part of the batch was
stored in an earlier life. The object's ids tell: what it has is stored; what it
lacks goes up beside it as ``…-r1``, ``…-r2``. Ids are compared, never gzip bytes.
"""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import gevent
from gevent.event import Event
from greenlet import greenlet

from estat import encoder, identity, metrics
from estat.batch import Batch, crc32_of
from estat.breaker import Breaker
from estat.errors import ObjectExists, StoreDenied, StoreError, StoreUnavailable
from estat.metrics import Metrics
from estat.stores import Store, Stores

T = TypeVar("T")

_ID = re.compile(rb'^\{"id":"[0-9a-f]+-(\d+)"')

#: A batch in more pieces than this is not ours: give up instead of asking for ever.
_MAX_RESTS = 100


class Delivery:
    """Stores batches, one attempt a call, each within ``timeout_seconds``."""

    def __init__(
        self,
        stores: Stores,
        bucket: str,
        timeout_seconds: float,
        counts: Metrics,
        breaker: Breaker,
    ) -> None:
        self._stores = stores
        self._bucket = bucket  # whose health it is: DLQ files may name another
        self._timeout_seconds = timeout_seconds
        self._counts = counts
        self._breaker = breaker
        self._until: float | None = None
        self._cutter: Any = None
        self._ended = Event()  # set when attempts may last no longer
        self._running: dict[gevent.Timeout, greenlet] = {}

    def attempt(self, batch: Batch, *, recovered: bool = False) -> None:
        """Make one attempt. It returns when every event of the batch is stored.

        ``recovered`` says that the batch was read from disk: an earlier life may
        have stored it, and not every store honours If-None-Match, so the object
        is looked up first. Raises StoreError.
        """
        try:
            self._attempt(batch, recovered)
        except StoreError as exc:
            self._counts.count(metrics.PUT_ERRORS)
            # a replay's failure may be its file's own fault
            if batch.bucket == self._bucket and not recovered:
                self._breaker.failed(exc)
            raise
        if batch.bucket == self._bucket:
            self._breaker.worked()
        now = time.time()
        for second, events in batch.accepted_at or ((batch.opened, batch.events),):
            self._counts.observe(metrics.LAG_SECONDS, max(0.0, now - second), events)

    def put_file(self, bucket: str, key: str, body: bytes) -> None:
        """Store a file as it is, for a person to look at. Raises StoreError."""
        try:
            store = self._bounded(lambda: self._stores.get(bucket))
            self._bounded(
                lambda: store.put(key, body, crc32_of(body), "application/octet-stream", {})
            )
        except ObjectExists:
            return  # an earlier attempt landed
        except StoreError:
            self._counts.count(metrics.PUT_ERRORS)
            raise

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
        except StoreError:
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
            if not (recovered and self._is_there(store, key)):
                try:
                    return self._put(store, replace(batch, key=key))
                except ObjectExists:
                    recovered = False  # what follows is looked up only when its key is taken
            missing = self._missing(store, key, batch)
            if missing is None:
                return None
            batch, key = missing, identity.rest_key(missing.key, number)
        raise StoreDenied(f"{batch.key} is taken by other events")

    def _is_there(self, store: Store, key: str) -> bool:
        try:
            return self._bounded(lambda: store.head(key)) is not None
        except StoreDenied as exc:
            if not exc.is_answer:
                raise
            # without s3:ListBucket, HEAD of a missing key is answered with 403:
            # If-None-Match alone has to tell
            return False

    def _put(self, store: Store, batch: Batch) -> None:
        body, crc32 = batch.payload, batch.crc32
        if not batch.key.endswith(identity.SUFFIX):
            body = encoder.gunzip(batch.payload)
            crc32 = crc32_of(body)
        started = time.perf_counter()
        try:
            self._bounded(
                lambda: store.put(batch.key, body, crc32, batch.content_type, batch.metadata)
            )
        finally:
            self._counts.observe(metrics.PUT_SECONDS, time.perf_counter() - started)

    def _missing(self, store: Store, key: str, batch: Batch) -> Batch | None:
        """Return what of a batch the object at ``key`` lacks; None if it has all."""
        if not batch.events:
            return None  # a stream's record: whoever wrote it wrote the same
        described = self._bounded(lambda: store.head(key))
        if described is None:
            raise StoreUnavailable(f"{key} is taken and then not there")
        if _covers(described, batch):
            return None
        try:
            there = set(_numbers(encoder.gunzip(self._bounded(lambda: store.get(key)))))
        except ValueError as exc:
            raise StoreDenied(f"the object at {key} can't be read: {exc}") from exc
        lines = encoder.gunzip(batch.payload).splitlines(keepends=True)
        rest = [line for line in lines if _number(line) not in there]
        if not rest:
            return None
        numbers = _numbers(b"".join(rest))
        payload = encoder.gzip(b"".join(rest))
        return replace(
            batch,
            first=numbers[0],
            last=numbers[-1],
            events=len(rest),
            payload=payload,
            crc32=crc32_of(payload),
        )


def _covers(described: dict[str, str], batch: Batch) -> bool:
    """Tell from its metadata alone whether an object surely has all of a batch's ids."""
    try:
        events = int(described["events"])
        first_stream, _, first = described["first-id"].rpartition("-")
        last_stream, _, last = described["last-id"].rpartition("-")
        return (
            first_stream == last_stream == batch.stream
            and events == int(last) - int(first) + 1  # without gaps
            and int(first) <= batch.first
            and batch.last <= int(last)
        )
    except (KeyError, ValueError):
        return False


def _number(line: bytes) -> int:
    match = _ID.match(line)
    if not match:
        raise StoreDenied("an object under our key holds lines that are not ours")
    return int(match[1])


def _numbers(lines: bytes) -> list[int]:
    return [_number(line) for line in lines.splitlines()]
