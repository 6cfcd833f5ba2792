"""Replays the DLQ: oldest first, several at a time, each file under its own key.

One worker does it, the one that leads.

A failure tells little by itself: the file may be at fault, or the store. While
nothing succeeds it is taken for an outage: one file at a time is tried, at
growing intervals, each time another one, so that no bad file can hide the good
ones. Once something succeeds in the same pass, a file that failed three times so is at
fault and moves to a later slot; a file that S3 refused for its own sake (400)
moves at once.
"""

import logging
import time
from itertools import islice

from gevent.event import Event
from gevent.pool import Pool

from estat.accounting import metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.config.settings import Settings
from estat.disk.dlq import EXPIRED, PENDING, Claim, DeadLetterQueue, Entry
from estat.disk.leader import Leader
from estat.errors import DiskError, NotOurs, ObjectRefused, StoreDenied, StoreError, Unreadable
from estat.events import ids
from estat.events.batch import Batch, crc32_of
from estat.events.text import excerpt
from estat.log import Seldom
from estat.pipeline.admission import Admission
from estat.pipeline.breaker import Breaker
from estat.pipeline.delivery import Delivery
from estat.pipeline.reconcile import Reconciliation
from estat.stores.store import full_jitter
from estat.threads import Offload

log = logging.getLogger(__name__)

_CONCURRENCY = 4
_IDLE_SECONDS = 1.0
_BACKOFF_BASE_SECONDS, _BACKOFF_CAP_SECONDS = 1.0, 30.0
_EXPIRED_SECONDS = 600.0  # "rarely", while they fail
_STRIKES = 3
_SHOWN_CHARS = 200

_STORED, _FAILED, _AT_FAULT, _SKIPPED = "stored", "failed", "at fault", "skipped"


class Replayer:
    """The loop that empties the DLQ."""

    def __init__(
        self,
        dlq: DeadLetterQueue,
        leader: Leader,
        reconciliation: Reconciliation,
        delivery: Delivery,
        breaker: Breaker,
        ledger: Ledger,
        admission: Admission,
        counts: Metrics,
        threads: Offload,
        settings: Settings,
    ) -> None:
        self._dlq = dlq
        self._leader = leader
        self._reconciliation = reconciliation
        self._delivery = delivery
        self._breaker = breaker
        self._ledger = ledger
        self._admission = admission
        self._counts = counts
        self._threads = threads
        self._settings = settings
        self._wakeup = Event()
        self._seldom = Seldom(log)
        self._ending = False
        self._failures = 0  # passes in a row in which nothing succeeded
        self._strikes: dict[str, int] = {}  # files that failed, the least recently tried first
        self._unremoved: set[str] = set()  # files that are stored, and could not be removed
        self._expired_at = 0.0
        self._oldest = 0

    def run(self) -> None:
        """Replay until ``end``."""
        while not self._ending:
            wait = _IDLE_SECONDS
            try:
                if self._leader.lead():
                    wait = self._pass()
            except DiskError as exc:
                self._admission.failed(exc)
            except Exception:  # noqa: BLE001 - whatever it is, it may come again at once
                self._seldom.exception("replay_failed_unexpectedly")
                wait = _BACKOFF_CAP_SECONDS
            self._wakeup.wait(wait)
            self._wakeup.clear()

    def nudge(self) -> None:
        """Do not wait for the next interval: the store works again."""
        self._failures = 0
        self._expired_at = 0.0
        self._wakeup.set()

    def end(self) -> None:
        """Make ``run`` return once the files in hand are done."""
        self._ending = True
        self._wakeup.set()

    def _pass(self) -> float:
        """Go through the files that are due; return the seconds to wait before the next pass."""
        self._reconciliation.first_led()
        booked = self._reconciliation.booked()
        if booked.files <= 0:
            self._counts.set(metrics.DLQ_OLDEST, 0)
            self._strikes.clear()
            self._reconciliation.booked_empty(booked)
            return _IDLE_SECONDS
        now, started = time.time(), time.monotonic()
        self._quarantined()
        due = self._due(now)
        if not self._oldest:
            self._reconciliation.found_empty(booked)
        succeeded = 0
        failed: list[Entry] = []
        waiting = iter(self._ordered(due))
        while not self._ending:
            # a single file probes a store that seems down
            size = _CONCURRENCY if succeeded or not self._failures else 1
            chunk = list(islice(waiting, size))
            results = Pool(_CONCURRENCY).map(self._replay, chunk)
            stored = results.count(_STORED)
            succeeded += stored
            failed += [e for e, result in zip(chunk, results, strict=True) if result == _FAILED]
            if not chunk or (_FAILED in results and not stored):
                break
        if succeeded or self._breaker.worked_since(started):
            # the store works, so it is the files' own fault
            self._strike(failed, now)
        if succeeded:
            self._failures = 0
            return 0.0
        if failed:
            self._failures += 1
            return full_jitter(self._failures, _BACKOFF_BASE_SECONDS, _BACKOFF_CAP_SECONDS)
        return _IDLE_SECONDS

    def _due(self, now: float) -> list[Entry]:
        """Return what is to be retried now; files that got too old are moved aside."""
        pending = self._threads.run(self._dlq.scan, PENDING, now)
        expired = self._threads.run(self._dlq.scan, EXPIRED, now)
        self._oldest = min(filter(None, (pending.oldest, expired.oldest)), default=0)
        self._counts.set(metrics.DLQ_OLDEST, self._oldest)
        limit = now - self._settings.dlq_max_age
        due = []
        for entry in pending.due:
            if entry.opened is not None and entry.opened < limit:
                self._expire(entry, now)
            else:
                due.append(entry)
        if due or not expired.due:
            return due
        # rarely, for they have failed long enough; but where nothing else is left to
        # show that the store is back, they are what probes it
        if time.monotonic() >= self._expired_at or (self._breaker.open and self._breaker.allows()):
            self._expired_at = time.monotonic() + _EXPIRED_SECONDS
            return expired.due
        return due

    def _ordered(self, due: list[Entry]) -> list[Entry]:
        """Return files that never failed, oldest first, then those that did, by turns."""
        turns = {name: turn for turn, name in enumerate(self._strikes)}
        return sorted(due, key=lambda entry: turns.get(entry.name, -1))

    def _strike(self, failed: list[Entry], now: float) -> None:
        for entry in failed:
            self._strikes[entry.name] = self._strikes.get(entry.name, 0) + 1
            if self._strikes[entry.name] >= _STRIKES:
                self._defer(entry, now)

    def _defer(self, entry: Entry, now: float) -> None:
        claim = self._claimed(entry)
        if claim:
            with claim:
                self._threads.run(self._dlq.defer, claim, now)
            self._strikes.pop(entry.name, None)
            log.warning("dlq_file_deferred", extra={"file": entry.name})

    def _expire(self, entry: Entry, now: float) -> None:
        claim = self._claimed(entry)
        if claim:
            with claim:
                self._threads.run(self._dlq.expire, claim, now)
            self._counts.count(metrics.DLQ_EXPIRED)

    def _replay(self, entry: Entry) -> str:
        """Store one file's batch and delete the file; return how that went."""
        claim = self._claimed(entry)
        if claim is None:
            return _SKIPPED
        with claim:
            if entry.name in self._unremoved:
                return self._remove(claim)
            try:
                return self._replay_claimed(claim)
            except NotOurs as exc:
                return self._set_aside(claim, exc)
            except DiskError as exc:
                self._admission.failed(exc)
                return _SKIPPED
            except Exception:  # noqa: BLE001 - one file stays one file, whatever is wrong
                self._seldom.exception("replay_failed_unexpectedly")
                self._threads.run(self._dlq.defer, claim, time.time())
                return _AT_FAULT

    def _remove(self, claim: Claim) -> str:
        """Try again to remove a file that is stored: it is not sent, nor counted, once more."""
        self._ledger.retract(claim.entry.events, claim.size_bytes)
        try:
            with self._ledger.removal(claim.entry.events, claim.size_bytes):
                self._threads.run(claim.remove)
        except DiskError as exc:
            self._not_read(claim.entry, exc)
            return _SKIPPED
        self._unremoved.discard(claim.entry.name)
        return _STORED

    def _claimed(self, entry: Entry) -> Claim | None:
        try:
            return self._threads.run(self._dlq.claim, entry)
        except DiskError as exc:
            self._not_read(entry, exc)
            return None

    def _not_read(self, entry: Entry, error: DiskError) -> None:
        """Leave a file for later that can't even be read: one bad file is no failing disk."""
        self._seldom.warning("dlq_file_not_read", "unreadable", error=str(error))
        self._last_in_turn(entry.name)

    def _last_in_turn(self, name: str) -> None:
        """Put a file behind all others that failed; its strikes stay."""
        self._strikes[name] = self._strikes.pop(name, 0)

    def _replay_claimed(self, claim: Claim) -> str:
        name = claim.entry.name
        try:
            batch = self._threads.run(claim.read)
        except DiskError as exc:
            self._not_read(claim.entry, exc)
            return _SKIPPED
        except NotOurs:
            raise
        except Unreadable as exc:
            self._threads.run(self._dlq.quarantine, claim)
            self._counts.count(metrics.DLQ_QUARANTINED)
            log.error("dlq_file_unreadable", extra={"file": name, "error": str(exc)})
            return _SKIPPED
        try:
            self._delivery.attempt(batch, recovered=True)
        except StoreError as exc:
            if isinstance(exc, ObjectRefused) or self._is_elsewhere(batch, exc):
                self._threads.run(self._dlq.defer, claim, time.time())
                self._strikes.pop(name, None)
                log.warning("dlq_file_refused", extra={"file": name, "error": str(exc)})
                return _AT_FAULT
            self._last_in_turn(name)
            return _FAILED
        self._ledger.replay(claim.entry.events, claim.size_bytes)
        try:
            with self._ledger.removal(claim.entry.events, claim.size_bytes):
                self._threads.run(claim.remove)
        except DiskError:
            self._unremoved.add(name)
            raise
        self._strikes.pop(name, None)
        self._expired_at = 0.0
        return _STORED

    def _set_aside(self, claim: Claim, error: NotOurs) -> str:
        """Leave a file unsent in its area, in a later slot: it hides nothing behind it."""
        name = claim.entry.name
        self._threads.run(self._dlq.defer, claim, time.time())
        self._strikes.pop(name, None)
        self._seldom.warning(
            "dlq_file_set_aside", "not_ours", file=excerpt(name, _SHOWN_CHARS), error=str(error)
        )
        return _AT_FAULT

    def _is_elsewhere(self, batch: Batch, error: StoreError) -> bool:
        """Tell whether the file is at fault: another bucket than that of today refused it."""
        refused = isinstance(error, StoreDenied) and error.is_answer
        return refused and batch.bucket != self._settings.raw_bucket

    def _quarantined(self) -> None:
        """Hand unreadable files over to DLQ_PREFIX; what can't be sent now waits."""
        settings = self._settings
        for entry in self._threads.run(self._dlq.quarantined):
            claim = self._claimed(entry)
            if claim is None:
                continue
            with claim:
                try:
                    content = self._threads.run(claim.content)
                except DiskError as exc:
                    self._not_read(entry, exc)
                    continue
                # the checksum keeps a second file of the same name apart from the first
                key = f"{settings.dlq_prefix}/{crc32_of(content):08x}-{ids.plain(entry.name)}"
                try:
                    self._delivery.put_file(settings.raw_bucket, key, content)
                except ObjectRefused as exc:
                    log.warning("dlq_file_refused", extra={"file": key, "error": str(exc)})
                    continue
                except StoreError:
                    return
                self._ledger.drop(entry.events, claim.size_bytes, "unreadable")
                with self._ledger.removal(entry.events, claim.size_bytes):
                    self._threads.run(claim.remove)
