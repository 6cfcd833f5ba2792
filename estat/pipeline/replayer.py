"""Replays the DLQ: oldest first, several at a time, each file under its own key.

One worker does it, the one that leads.

After one failure, or one refusal (400), nobody knows whether the file or the store is at
fault. While nothing succeeds, it counts as an outage: one file at a time is tried, at growing
intervals, each time another one, so that no bad file can hide the good ones. A file is at fault
if it failed three times, and the store worked in between. Then it moves to a later slot. When
an outage ends, files in later slots are tried again.

The last step of a stop but one hands over to FALLBACK_BUCKET what is left. By then everything is on
disk, so nothing is at risk. The keys stay the same. A batch whose PUT to RAW_BUCKET timed out but
landed may end up in both buckets; its ids are the same in both.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

import gevent
from gevent.pool import Pool

from estat.accounting import metrics
from estat.config.settings import Settings
from estat.disk.dlq import EXPIRED, PENDING, QUARANTINE, SCAN_LIMIT, Claim, Entry
from estat.disk.leader import Leader
from estat.disk.slots import EVER, is_due
from estat.errors import DiskError, NotOurs, ObjectRefused, StoreDenied, StoreError, Unreadable
from estat.events import ids
from estat.events.batch import Batch, crc32_of
from estat.events.closed_hour import HANDED_OVER
from estat.pipeline.admission import Accounts, Disk
from estat.pipeline.delivery import Delivery
from estat.pipeline.leader_loop import LeaderLoop
from estat.stores.store import full_jitter

log = logging.getLogger(__name__)

T = TypeVar("T")

_CONCURRENCY = 4
#: Between the starts of files of one group: a PUT holds the event loop for some 3 ms, and requests
#: have their turn between two of them.
_APART_SECONDS = 0.01
_BACKOFF_BASE_SECONDS, _BACKOFF_CAP_SECONDS = 1.0, 30.0
_EXPIRED_SECONDS = 600.0  # "rarely", while they fail
_OTHERS_SECONDS = 0.05  # between looks at what the other workers of a stop have left
_STRIKES = 3

#: What came of a file.
_STORED, _FAILED, _AT_FAULT = "stored", "failed", "at fault"
_MOVED, _SKIPPED = "moved", "skipped"


class _Tries(NamedTuple):
    """What is remembered of a file that failed."""

    strikes: int = 0
    failed_at: float = 0.0  # time.monotonic()


class Replayer(LeaderLoop):
    """The loop that empties the DLQ."""

    _pause_after_error_seconds = _BACKOFF_CAP_SECONDS
    _error_event = "replay_failed_unexpectedly"

    def __init__(
        self, disk: Disk, leader: Leader, delivery: Delivery, accounts: Accounts, settings: Settings
    ) -> None:
        super().__init__(leader, accounts.admission)
        self._disk = disk
        self._delivery = delivery
        self._breaker = delivery.breaker
        self._counts, self._ledger, _, self._hours = accounts
        self._settings = settings
        self._failures = 0  # passes in a row in which nothing succeeded
        self._tries: dict[str, _Tries] = {}  # files that failed, the least recently tried first
        self._after_outage = False  # what was put off is due, too
        self._unremoved: set[str] = set()  # files that are stored, and could not be removed
        self._expired_at = 0.0

    def nudge(self) -> None:
        """Do not wait for the next interval: the store works again."""
        self._failures = 0
        self._expired_at = 0.0
        self._after_outage = True
        super().nudge()

    def turn(self) -> float:
        """Go through the files that are due."""
        if self._admission.in_dlq().files <= len(self._disk.dlq.aside):
            self._counts.set(metrics.DLQ_OLDEST, 0)
            self._tries.clear()
            return self._pause_seconds
        self.store_quarantined()
        due = self._due(time.time())
        succeeded, failed = self._replay_all(self._ordered(due))
        if succeeded:
            self._after_outage |= self._failures >= _STRIKES
            self._failures = 0
            return 0.0
        if failed:
            self._failures += 1
            return full_jitter(self._failures, _BACKOFF_BASE_SECONDS, _BACKOFF_CAP_SECONDS)
        return self._pause_seconds

    def _replay_all(self, entries: list[Entry]) -> tuple[int, int]:
        """Replay files until all of a group fail; return how many succeeded, how many failed."""
        succeeded = failed = 0
        waiting = iter(entries)
        while not self._ending:
            # a single file probes a store that seems down
            size = _CONCURRENCY if succeeded or not self._failures else 1
            group = list(islice(waiting, size))
            results = Pool(_CONCURRENCY).map(self._replay_apart, enumerate(group))
            stored = results.count(_STORED)
            succeeded += stored
            failed += results.count(_FAILED)
            if not group or (_FAILED in results and not stored):
                break
        return succeeded, failed

    def _replay_apart(self, numbered: tuple[int, Entry]) -> str:
        number, entry = numbered
        gevent.sleep(number * _APART_SECONDS)
        return self.replay(entry)

    def _due(self, now: float) -> list[Entry]:
        """Return what is to be retried now; files that got too old are moved aside."""
        by = EVER if self._after_outage else now
        pending = self._disk.run(self._disk.dlq.scan, PENDING, by)
        # until a scan has reached the later slots, which come last
        full = len(pending.due) >= SCAN_LIMIT
        self._after_outage &= full and is_due(pending.due[0].slot, now)
        expired = self._disk.run(self._disk.dlq.scan, EXPIRED, now)
        oldest = min(filter(None, (pending.oldest, expired.oldest)), default=0)
        self._counts.set(metrics.DLQ_OLDEST, oldest)
        limit = now - self._settings.dlq_max_age
        due = []
        for entry in pending.due:
            is_old = entry.opened is not None and entry.opened < limit
            # one that could not be moved is tried: the disk gets room by what is replayed
            if not is_old or self._handle(entry, partial(self._expire, now=now)) == _SKIPPED:
                due.append(entry)
        if due or not expired.due:
            return due
        # rarely, for they have failed long enough; but where nothing else is left to show that the
        # store is back, they are what probes it
        is_away = self._failures or self._breaker.open
        if is_away or time.monotonic() >= self._expired_at:
            self._expired_at = time.monotonic() + _EXPIRED_SECONDS
            return expired.due
        return due

    def _ordered(self, due: list[Entry]) -> list[Entry]:
        """Return files that never failed, oldest first, then those that did, by turns."""
        turns = {name: turn for turn, name in enumerate(self._tries)}
        return sorted(due, key=lambda entry: turns.get(entry.name, -1))

    def _put_off(self, claim: Claim) -> None:
        """Move a file to a later slot, where it hides nothing behind it."""
        try:
            self._disk.run(self._disk.dlq.defer, claim, time.time())
            self._tries.pop(claim.entry.name, None)
        except DiskError as exc:
            # the slot may need room that the disk does not have
            self._admission.failed(exc)
            self._last_in_turn(claim.entry.name)

    def _expire(self, claim: Claim, now: float) -> str:
        """Move a file to the expired ones. Raises DiskError: its slot may need room."""
        try:
            self._disk.run(self._disk.dlq.check, claim.entry)
        except NotOurs:
            raise
        except (Unreadable, DiskError) as exc:
            log.debug("dlq_file_not_read", extra={"error": str(exc)})  # its replay tells it
        self._disk.run(self._disk.dlq.expire, claim, now)
        self._counts.count(metrics.DLQ_EXPIRED)
        return _MOVED

    def _set_aside(self, entry: Entry, error: NotOurs) -> None:
        """Leave a file where it is that is not ours to send, and look at it no more."""
        self._ledger.set_aside(entry.events, error.reason)
        self._disk.dlq.aside[entry.path] = error.reason
        self._tries.pop(entry.name, None)
        self._seldom.warning("dlq_file_set_aside", error.reason, file=entry.name, error=str(error))

    def replay(self, entry: Entry) -> str:
        """Store one file's batch and delete the file; return how that went."""
        return self._handle(entry, self._store)

    def store_quarantined(self) -> None:
        """Hand unreadable files over to DLQ_PREFIX; what can't be sent now waits."""
        for entry in self._ordered(self._disk.run(self._disk.dlq.scan, QUARANTINE, EVER).due):
            if self._handle(entry, self._store_as_it_is) == _FAILED:
                return

    def _handle(self, entry: Entry, work: Callable[[Claim], str]) -> str:
        """Do ``work`` with a file that nobody else works on; return how that went."""
        try:
            claim = self._disk.run(self._disk.dlq.claim, entry)
        except DiskError as exc:
            self._not_read(entry, exc)
            claim = None
        if claim is None:
            return _SKIPPED
        with claim:
            try:
                if entry.name in self._unremoved:
                    # it is not sent, nor counted, once more
                    self._ledger.retract(entry.events, claim.size_bytes)
                    return self._remove(claim)
                return work(claim)
            except NotOurs as exc:
                self._set_aside(entry, exc)
                return _AT_FAULT
            except DiskError as exc:
                self._admission.failed(exc)
                return _SKIPPED
            except Exception:  # noqa: BLE001 - one file stays one file, whatever is wrong
                self._seldom.exception("replay_failed_unexpectedly")
                self._put_off(claim)
                return _AT_FAULT

    def _remove(self, claim: Claim) -> str:
        """Remove a file that was sent and is out of the accounting, or remember that it was."""
        entry = claim.entry
        try:
            self._disk.remove(claim, self._ledger)
        except DiskError as exc:
            if entry.name not in self._unremoved:
                self._unremoved.add(entry.name)
                raise
            self._not_read(entry, exc)
            return _SKIPPED
        self._unremoved.discard(entry.name)
        self._tries.pop(entry.name, None)
        return _STORED

    def _not_read(self, entry: Entry, error: DiskError) -> None:
        """Leave a file for later that can't even be read: one bad file is no failing disk."""
        self._seldom.warning("dlq_file_not_read", "unreadable", error=str(error))
        self._last_in_turn(entry.name)

    def _last_in_turn(self, name: str) -> None:
        """Put a file behind all others that failed; its strikes stay."""
        self._tries[name] = self._tries.pop(name, _Tries())

    def _strike(self, name: str) -> bool:
        """Take note of a file's failure; return whether the file is at fault."""
        tries = self._tries.pop(name, _Tries())
        # again without a sign of the store in between, it says nothing new
        strikes = tries.strikes + (not tries.strikes or self._breaker.worked_since(tries.failed_at))
        self._tries[name] = _Tries(strikes, time.monotonic())
        return strikes >= _STRIKES

    def _read(self, claim: Claim, read: Callable[[], T]) -> T | None:
        """Return what a file holds; None if it can't be read. Raises NotOurs."""
        try:
            return self._disk.run(read)
        except DiskError as exc:
            self._not_read(claim.entry, exc)
        except NotOurs:
            raise
        except Unreadable as exc:
            self._disk.run(self._disk.dlq.quarantine, claim)
            self._counts.count(metrics.DLQ_QUARANTINED)
            facts = {"file": claim.entry.name, "error": str(exc)}
            log.error("dlq_file_unreadable", extra=facts)
        return None

    def _store(self, claim: Claim) -> str:
        """Store a file's batch, then remove the file. Raises DiskError, and NotOurs."""
        batch = self._read(claim, claim.read)
        if batch is None:
            return _SKIPPED
        try:
            self._delivery.attempt(batch, recovered=True)
        except StoreError as exc:
            return self._failed(claim, batch, exc)
        self._ledger.replay(claim.entry.events, claim.size_bytes)
        self._expired_at = 0.0
        return self._remove(claim)

    def _failed(self, claim: Claim, batch: Batch, error: StoreError) -> str:
        """Put a file off if it is at fault itself; return whether it is. Raises DiskError."""
        name = claim.entry.name
        refused = isinstance(error, StoreDenied | ObjectRefused) and error.is_answer
        # another bucket than that of today refused it: the file is at fault
        elsewhere = refused and batch.bucket != self._settings.raw_bucket
        if elsewhere or isinstance(error, ObjectRefused):
            self._tell_refused(name, error)
        if not (elsewhere or self._strike(name)):
            return _FAILED
        self._put_off(claim)
        log.warning("dlq_file_deferred", extra={"file": name, "error": str(error)})
        return _AT_FAULT

    def _tell_refused(self, name: str, error: StoreError) -> None:
        self._seldom.warning("dlq_file_refused", "refused", file=name, error=str(error))

    def _store_as_it_is(self, claim: Claim) -> str:
        """Store a file of the quarantine for a person to look at, then remove it."""
        content = self._read(claim, claim.content)
        if content is None:
            return _SKIPPED
        entry, bucket = claim.entry, self._settings.raw_bucket
        key = ids.unreadable_key(self._settings.dlq_prefix, crc32_of(content), entry.name)
        try:
            self._delivery.put_file(bucket, key, content)
        except StoreError as exc:
            self._last_in_turn(entry.name)
            if isinstance(exc, ObjectRefused):
                self._tell_refused(entry.name, exc)
            return _FAILED
        self._ledger.drop(entry.events, claim.size_bytes, "unreadable")
        return self._remove(claim)

    def hand_over(self, bucket: str, deadline: float) -> None:
        """Hand the DLQ over to another bucket: as much as it takes until ``deadline``.

        For the end of a stop: nobody looks any more at what is left. It stays on disk, where the
        next start finds it.
        """
        results = [_STORED]
        try:
            while {_STORED, _MOVED} & {*results} and time.monotonic() < deadline:
                # a slot in the future is no reason to leave a file behind
                entries = self._disk.run(self._disk.dlq.waiting)
                if entries and not self._leader.lead():
                    # the leader takes our files too; should it end before, we lead
                    gevent.sleep(_OTHERS_SECONDS)
                    continue
                results = []
                for entry in entries:
                    results.append(self._handle(entry, partial(self._store_in, bucket)))
                    if results[-1] == _FAILED:
                        return
        except DiskError as exc:
            log.error("hand_over_ended", extra={"error": str(exc)})

    def _store_in(self, bucket: str, claim: Claim) -> str:
        """Store a file's batch in another bucket. Raises DiskError."""
        try:
            batch = self._read(claim, claim.read)
            if batch is None:
                return _SKIPPED
            self._disk.dlq.may_go_to(batch.bucket)
            self._delivery.attempt(replace(batch, bucket=bucket), recovered=True)
        except (NotOurs, ObjectRefused) as exc:
            facts = {"file": claim.entry.name, "error": str(exc)}
            self._seldom.warning("hand_over_skipped", "bad", **facts)
            # it hides none behind it; whether it is set aside was up to the one who led before
            self._disk.dlq.aside[claim.entry.path] = NotOurs.reason
            return _MOVED
        except StoreError as exc:
            log.error("hand_over_ended", extra={"error": str(exc)})
            return _FAILED
        self._hours.note(batch, HANDED_OVER)
        self._ledger.hand_over(claim.entry.events, claim.size_bytes)
        return self._remove(claim)
