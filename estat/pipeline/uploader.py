"""Takes finished batches to the store; what it can't deliver goes to the DLQ.

    upload queue -> attempt, and S3_APP_RETRIES more -> stored
                                                     -> failed for now: DLQ file
    breaker open, or upload queue full               -> DLQ file at once

A batch leaves memory only when it is stored or on disk. While the disk fails
too, one that has a journal is left to that, and read from there again later.
Without a journal, store and disk are tried in turn, for as long as the process
lives; admission is closed by then, so that memory stays bounded.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import gevent
from gevent.queue import Full, JoinableQueue

from estat.accounting import metrics
from estat.config.settings import Settings
from estat.disk import dlq_file
from estat.disk.journal import Journal, Journals
from estat.disk.journal_recovery import RecoveredJournal, recover_journal
from estat.errors import DiskError, NotOurs, StoreError, StoreUnavailable
from estat.events.batch import Batch
from estat.log import Seldom
from estat.pipeline.admission import Accounts, Disk
from estat.pipeline.answers import Waiting
from estat.pipeline.delivery import Delivery
from estat.stores.store import full_jitter

log = logging.getLogger(__name__)

_RETRY_BASE_SECONDS, _RETRY_CAP_SECONDS = 0.2, 2.0
_STUCK_BASE_SECONDS, _STUCK_CAP_SECONDS = 0.5, 5.0
_LAST_SECONDS = 0.1


#: Files that one write may drop to make room; a single batch is rarely larger than a few.
_MAX_DROPS = 100


class Upload(NamedTuple):
    """A finished batch, the journal that keeps its events meanwhile, and who waits for it."""

    batch: Batch
    journal: Journal | None = None
    waiting: Waiting | None = None

    def settle(self, on_disk: str = "") -> None:
        """Answer those who wait, if anybody does; see ``Waiting.settle``."""
        if self.waiting:
            self.waiting.settle(on_disk)


class Spill:
    """Moves batches from memory to the DLQ, under the policy for a full one."""

    def __init__(self, disk: Disk, journals: Journals, accounts: Accounts) -> None:
        self._disk = disk
        self._journals = journals
        _, self._ledger, self._admission, self._hours = accounts

    def spill(self, batch: Batch, reason: str, error: str, journal: Journal | None = None) -> None:
        """Write a batch to the DLQ; its journal then goes.

        Raises DiskError; the batch is then where it was.
        """
        try:
            self._journals.may_write()
            with self._ledger.changing():
                size = self._write(batch, dlq_file.pack(batch, reason, error))
                self._ledger.spill(batch.events, size)
        except DiskError as exc:
            self._admission.failed(exc)
            raise
        self.let_go(batch, journal)

    def let_go(self, batch: Batch, journal: Journal | None) -> None:
        """Take note that a batch is in the store or the DLQ, and so in memory no more."""
        if journal:
            self._journals.finish(journal)
        self._hours.left(batch.key)
        self._admission.expose(-len(batch.payload), files=-1)

    def make_room(self) -> None:
        """Drop the oldest file where the policy says so and the disk is full."""
        if self._admission.drop_oldest and self._admission.out_of_space:
            self._drop_oldest()

    def _write(self, batch: Batch, parts: list[bytes]) -> int:
        drops = range(_MAX_DROPS if self._admission.drop_oldest else 0)
        limit = self._admission.max_bytes - sum(map(len, parts))
        for _ in drops:
            if self._admission.in_dlq().size_bytes <= limit or not self._drop_oldest():
                break
        for _ in drops:
            try:
                return self._disk.run(self._disk.dlq.write, batch, parts)
            except DiskError as exc:
                if not (exc.no_space and self._drop_oldest()):
                    raise
        return self._disk.run(self._disk.dlq.write, batch, parts)

    def _drop_oldest(self) -> bool:
        """Delete the oldest file that nobody is sending; False if there is none."""
        claim = self._disk.run(self._disk.dlq.oldest)
        if claim is None:
            return False
        entry = claim.entry
        with claim:
            self._hours.dropped(entry)
            self._ledger.drop(entry.events, claim.size_bytes, "overflow")
            self._disk.remove(claim, self._ledger)
        log.warning("dlq_file_dropped", extra={"file": entry.name, "events": entry.events})
        return True


class Uploader:
    """The upload queue and the loop of the greenlets that empty it."""

    def __init__(
        self,
        delivery: Delivery,
        journals: Journals,
        disk: Disk,
        accounts: Accounts,
        settings: Settings,
    ) -> None:
        self.spill = Spill(disk, journals, accounts)
        #: Tells whether another server may have found a batch's journal, and stored the batch.
        self.may_be_stored: Callable[[], bool] = lambda: False
        self._delivery = delivery
        self._breaker = delivery.breaker
        self._disk = disk
        self._counts, self._ledger, self._admission, _ = accounts
        self._settings = settings
        self._seldom = Seldom(log)
        self._queue: JoinableQueue[Upload] = JoinableQueue(maxsize=settings.upload_queue)
        #: Of batches that neither store nor disk took: they are on disk there alone.
        self._journals_left: deque[Journal] = deque()

    def submit(self, upload: Upload) -> None:
        """Take over a batch; waits only while neither the queue nor the disk takes it."""
        try:
            self._queue.put_nowait(upload)
        except Full:
            self._keep_on_disk(upload, "upload_queue_full", "")

    def run(self) -> None:
        """Upload batches for ever; the drain kills it in the end."""
        while True:
            upload = self._queue.get()
            try:
                self.upload(upload)
            finally:
                self._queue.task_done()

    def join(self, timeout_seconds: float) -> None:
        """Wait until every batch is stored or on disk, at most so long."""
        self._queue.join(timeout=timeout_seconds)

    def upload_record(self, record: Batch, until: float) -> None:
        """Store a stream's record with one attempt, which ends at ``until``; else spill it."""
        self._admission.expose(len(record.payload), files=1)
        try:
            if self._breaker.open:
                raise StoreError("the store is down")
            self._delivery.end_attempts(until)
            self._delivery.attempt(record)
            self.spill.let_go(record, None)
        except StoreError as exc:
            try:
                self.spill.spill(record, "stream_record", str(exc))
            except DiskError as failure:
                # no event is lost with it; an audit will show the stream as open
                log.error("stream_record_lost", extra={"error": str(failure)})

    def resume(self) -> None:
        """Take batches that were left to their journals up again, while the queue has room.

        Raises DiskError for a journal that can't be read, but only once for each: it may be a
        bad file, which must neither close admission again and again nor hide the others.
        """
        failure: DiskError | None = None
        for _ in range(len(self._journals_left)):
            if self._queue.full() or (self._admission.failing and self._breaker.open):
                break
            journal = self._journals_left.popleft()
            try:
                content = self._disk.run(journal.content)
            except DiskError as exc:
                self._journals_left.append(journal)
                self._seldom.warning("journal_not_read", "unreadable", error=str(exc))
                if not journal.refused:
                    journal.refused, failure = True, exc
                continue
            stream = journal.header.stream
            try:
                found = self._disk.run(recover_journal, content, stream, 0, self._settings)
            except NotOurs:
                found = RecoveredJournal(None, [])
            if found.batch is None or found.damages:
                # recovery takes the rest of it
                log.error("journal_damaged", extra={"key": journal.header.key})
                continue
            self._admission.expose(len(found.batch.payload), files=1)
            self.submit(Upload(found.batch, journal))
        if failure:
            raise failure

    def upload(self, upload: Upload) -> None:
        """Bring one batch to the store, or else to disk."""
        probing = self._breaker.open
        if not self._breaker.allows():
            self._keep_on_disk(upload, "breaker_open", "")
            return
        reason, error = "put_failed", ""
        for attempt in range(1 if probing else 1 + self._settings.s3_app_retries):
            if attempt:
                self._delivery.pause(
                    full_jitter(attempt - 1, _RETRY_BASE_SECONDS, _RETRY_CAP_SECONDS)
                )
            if self._delivery.over:
                reason = "stopping"
                break
            try:
                self._deliver(upload)
            except StoreUnavailable as exc:
                error = str(exc)
            except StoreError as exc:
                error = str(exc)
                break
            except Exception as exc:
                log.exception("upload_failed_unexpectedly", extra={"key": upload.batch.key})
                self._counts.count(metrics.PUT_ERRORS)
                error = repr(exc)
                break
            else:
                return
        self._keep_on_disk(upload, reason, error)

    def _deliver(self, upload: Upload) -> None:
        batch, journal, _ = upload
        self._delivery.attempt(batch, recovered=self.may_be_stored())
        self._ledger.store(batch.events)
        upload.settle()
        self.spill.let_go(batch, journal)

    def _keep_on_disk(self, upload: Upload, reason: str, error: str) -> None:
        batch, journal, _ = upload
        upload.settle(reason)  # the journal has the events, whatever comes next
        attempt = 0
        while True:
            try:
                return self.spill.spill(batch, reason, error, journal)
            except DiskError:
                log.debug("spill_failed", exc_info=True)  # Admission.failed logs it once
            except Exception:  # noqa: BLE001 - the batch must not go with it
                self._seldom.exception("spill_failed_unexpectedly")
            try:
                return self._deliver(upload)
            except StoreError as exc:
                error = str(exc)
            except Exception:  # noqa: BLE001 - nor here
                self._seldom.exception("upload_failed_unexpectedly")
            if journal:
                self._journals_left.append(journal)
                self._admission.expose(-len(batch.payload), files=-1)
                return None
            wait = full_jitter(attempt, _STUCK_BASE_SECONDS, _STUCK_CAP_SECONDS)
            self._delivery.pause(wait)
            if self._delivery.over:
                gevent.sleep(min(wait, _LAST_SECONDS))  # only the disk is left to try, often
            attempt += 1
