"""Recovers the journals of dead processes: every batch in them becomes a DLQ file.

From there it is replayed under its own key as any other, so an event that was
stored before the crash is found in its object and not stored twice. A process
is dead when its stream's lock is free, for the kernel holds it as long as the
process lives. One worker does this, the one that leads; whoever works on a
stream holds its lock. The streams of other runs of the server come here by a
takeover, and are recovered in the same way; their events count as adopted.

The order of the steps makes every one of them safe to repeat: first the DLQ
file, durable, then the accounting, then the journal goes. Where the disk takes
no file, the batch is stored at once, in place of the first step, and so is what can't
be read. What can be neither kept nor stored hides none of the others, unless the store is away.
"""

import logging
import os
from functools import partial

from estat.accounting import metrics
from estat.config.settings import Settings
from estat.disk import directory_lock, dlq_file, files, journal
from estat.disk.directory_lock import DirectoryLock
from estat.disk.dlq_file import pack
from estat.disk.journal_recovery import Damage, DeadStream, RecoveredJournal, events_in
from estat.disk.leader import Leader
from estat.errors import DiskError, NoCredentials, NotOurs, StoreError, StoreUnavailable
from estat.events import ids
from estat.events.batch import Batch, crc32_of
from estat.events.gzip import gzip
from estat.pipeline.admission import Accounts, Disk
from estat.pipeline.delivery import Delivery
from estat.pipeline.leader_loop import LeaderLoop
from estat.pipeline.reconcile import Reconciliation

log = logging.getLogger(__name__)


def pending_events(dlq_dir: str) -> int:
    """Count the events in the journals of all streams of this run of the server.

    A journal that can't be read or understood is logged and counts for nothing. Blocks. Raises
    DiskError.
    """
    root = os.path.join(dlq_dir, journal.DIRECTORY)
    events = 0
    for stream in directory_lock.streams(root):
        if ids.started_at(stream) is not None:
            for path in directory_lock.journals(os.path.join(root, stream)):
                try:
                    events += events_in(files.read_whole(path))
                except DiskError as exc:
                    log.error("journal_not_read", extra={"error": str(exc)})
                except Exception:
                    # the accounting of the stop must not end with it
                    log.exception("journal_not_understood", extra={"file": path})
    return events


class Recovery(LeaderLoop):
    """The loop that looks for dead streams."""

    _error_event = "recovery_failed_unexpectedly"

    def __init__(
        self,
        disk: Disk,
        leader: Leader,
        reconciliation: Reconciliation,
        delivery: Delivery,
        accounts: Accounts,
        settings: Settings,
    ) -> None:
        super().__init__(leader, accounts.admission)
        self._disk = disk
        self._reconciliation = reconciliation
        self._delivery = delivery
        self._counts, self._ledger, _ = accounts
        self._settings = settings
        #: Journals that could not be deleted: what they hold is in the DLQ, or was.
        self._left: set[str] = set()
        #: Journals that are not obeyed: they stay where they are.
        self._set_aside: set[str] = set()
        #: Damaged ranges that are stored, and whose journals may still be there.
        self._stored: set[str] = set()
        self._failure: DiskError | None = None  # of this turn

    def turn(self) -> float:
        """Recover all dead streams. Raises DiskError."""
        self._failure = None
        found = self._recover_all()
        if self._failure:
            raise self._failure
        if not self._ending:
            self._reconciliation.look(recovered=not found)
        return self._pause_seconds

    def _recover_all(self) -> bool:
        """Recover what can be recovered; tell whether there was any of this run of the server."""
        root = os.path.join(self._settings.dlq_dir, journal.DIRECTORY)
        found = False
        for name in self._disk.run(directory_lock.streams, root):
            stream = directory_lock.stream_of(name)
            if ids.started_at(stream) is None or self._ending:
                continue
            of_this_run = not directory_lock.is_taken_over(name)
            try:
                lock = self._disk.run(DirectoryLock.adopt, root, name)
            except DiskError as exc:
                # one bad directory is no failing disk, and must not hide the others
                self._seldom.warning("journal_not_read", "unreadable", error=str(exc))
                found = found or of_this_run
                continue
            if lock:
                try:
                    # another run's, which nobody may send, keep no accounting open
                    set_aside = self._recover(stream, lock, of_this_run) and not of_this_run
                    found = found or not set_aside
                finally:
                    self._disk.run(lock.release)
        return found

    def _recover(self, stream: str, lock: DirectoryLock, of_this_run: bool) -> bool:
        """Bring a stream's journals to the DLQ; tell whether it has only such as are set aside."""
        events = batches = 0
        paths = self._disk.run(lock.journals)
        dead = DeadStream(self._settings)
        for path in paths:
            if self._ending:
                return False
            if path in self._set_aside:
                continue
            if path not in self._left:
                found = self._read(dead, path, of_this_run)
                if found is None:
                    continue
                try:
                    events += self._keep(found, of_this_run)
                except DiskError as exc:
                    if isinstance(exc.__cause__, (StoreUnavailable, NoCredentials)):
                        raise  # nor would it take the others
                    self._failure = self._failure or exc
                    continue
                batches += 1
            self._delete(path)
        if batches:
            facts = {"stream": stream, "batches": batches, "events": events}
            log.warning("journals_recovered", extra=facts)
        return bool(paths) and self._set_aside.issuperset(paths)

    def _delete(self, path: str) -> None:
        """Delete a journal whose batch is in the DLQ; what can't be deleted hides no other."""
        try:
            self._disk.run(files.remove, path)
            self._left.discard(path)
        except DiskError as exc:
            self._left.add(path)
            self._seldom.warning("journal_not_deleted", "kept", error=str(exc))

    def _read(self, dead: DeadStream, path: str, of_this_run: bool) -> RecoveredJournal | None:
        """Return what a journal holds; None where it has to stay. None of them hides another."""
        try:
            return self._disk.run(dead.read, path)
        except DiskError as exc:
            # one bad file is no failing disk
            self._seldom.warning("journal_not_read", "unreadable", error=str(exc))
        except NotOurs as exc:
            self._set_aside.add(path)
            if not of_this_run:
                self._ledger.set_journal_aside(exc.events, exc.reason)
            self._seldom.warning("journal_set_aside", exc.reason, file=path, error=str(exc))
        except Exception:
            self._set_aside.add(path)
            self._counts.count(metrics.DLQ_QUARANTINED)
            log.exception("journal_not_understood", extra={"file": path})
        return None

    def _keep(self, found: RecoveredJournal, of_this_run: bool) -> int:
        """Bring what a journal holds to the DLQ; return the number of events."""
        batch = found.batch
        for damage in found.damages:
            if not self._put_aside(damage, of_this_run):
                continue
            self._counts.count(metrics.DLQ_QUARANTINED)
            facts = {"range": damage.name, "events": damage.events, "torn": damage.is_torn}
            log.log(
                logging.WARNING if damage.is_torn else logging.ERROR, "journal_damaged", extra=facts
            )
        if batch is None:
            return 0
        parts = pack(batch, "recovered", "")
        if self._disk.run(self._disk.dlq.holds, batch):
            return 0  # its writer may or may not have counted it: the next looks will tell
        try:
            size = self._disk.run(partial(self._disk.dlq.write, batch, parts, beside=True))
        except DiskError as exc:
            self._store(batch, exc)
            self._ledger.recover_stored(batch.events, of_this_run=of_this_run)
        else:
            self._ledger.recover(batch.events, size, of_this_run=of_this_run)
        return batch.events

    def _put_aside(self, damage: Damage, of_this_run: bool) -> bool:
        """Bring a damaged range to the quarantine; tell whether it was not there."""
        if damage.name in self._stored:
            return False
        try:
            size = self._disk.run(self._disk.dlq.put_aside, *damage)
        except DiskError as exc:
            self._store_damage(damage, exc)
            self._ledger.recover_dropped(damage.events, "unreadable", of_this_run=of_this_run)
            self._stored.add(damage.name)
            return True
        if size is not None:
            self._ledger.recover(damage.events, size, of_this_run=of_this_run)
        return size is not None

    def _store_damage(self, damage: Damage, error: DiskError) -> None:
        """Store a damaged range where the quarantine's files go, as ``_store`` does a batch."""
        self._admission.failed(error)
        content = gzip(damage.data)
        name = dlq_file.name_for(damage.name, damage.events)
        key = ids.unreadable_key(self._settings.dlq_prefix, crc32_of(content), name)
        try:
            self._delivery.put_file(self._settings.raw_bucket, key, content)
        except StoreError as exc:
            raise error from exc

    def _store(self, batch: Batch, error: DiskError) -> None:
        """Store a batch at once that the DLQ has no room for: what empties a disk needs none.

        Raises the disk's error if the store does not take it either.
        """
        self._admission.failed(error)
        try:
            self._delivery.attempt(batch, recovered=True)
        except (StoreError, NotOurs) as exc:
            raise error from exc
