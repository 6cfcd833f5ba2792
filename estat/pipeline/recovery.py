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
be read. If something can be neither kept nor stored, the others go on, unless the store is away.
"""

import logging
import os
from collections.abc import Callable
from functools import partial

from estat.accounting import metrics
from estat.config.settings import Settings
from estat.disk import directory_lock, dlq_file, files, journal
from estat.disk.directory_lock import LOCK, DirectoryLock
from estat.disk.dlq_file import pack
from estat.disk.journal_recovery import Damage, DeadStream, RecoveredJournal, events_in
from estat.disk.leader import Leader
from estat.disk.server_directory import LEASE_SECONDS, now
from estat.errors import DiskError, NoCredentials, NotOurs, StoreError, StoreUnavailable
from estat.events import ids
from estat.events.batch import crc32_of
from estat.events.gzip import gzip
from estat.pipeline.admission import Accounts, Disk
from estat.pipeline.delivery import Delivery
from estat.pipeline.leader_loop import LeaderLoop
from estat.pipeline.reconcile import Reconciliation

log = logging.getLogger(__name__)


def pending_events(dlq_dir: str) -> int:
    """Count the events in the journals of all streams of this run of the server.

    What can't be read or understood is logged and counts for nothing. Blocks.
    """
    root = os.path.join(dlq_dir, journal.DIRECTORY)
    events = 0
    try:
        for stream in directory_lock.streams(root):
            if not directory_lock.is_taken_over(stream):
                paths = directory_lock.journals(os.path.join(root, stream))
                events += sum(map(_events_in, paths))
    except DiskError as exc:
        log.error("journals_not_read", extra={"error": str(exc)})
    return events


def _events_in(path: str) -> int:
    try:
        return events_in(files.read_whole(path))
    except DiskError as exc:
        log.error("journal_not_read", extra={"error": str(exc)})
    except Exception:
        # the accounting of the stop must not end with it
        log.exception("journal_not_understood", extra={"file": path})
    return 0


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
        self._counts, self._ledger, *_ = accounts
        self._settings = settings
        #: Journals that are not obeyed: they stay where they are.
        self._set_aside: set[str] = set()
        #: What is in the DLQ or the store while its journal is still there: paths of journals, and
        #: names of damaged ranges. It may be gone from the DLQ again, and yet must not be counted
        #: a second time.
        self._done: set[str] = set()
        self._without_lock: dict[str, float] = {}  # since when, by the streams' paths

    def turn(self) -> float:
        """Recover all dead streams. Raises DiskError."""
        root = os.path.join(self._settings.dlq_dir, journal.DIRECTORY)
        left = False  # something of this run
        for name in self._disk.run(directory_lock.streams, root):
            if self._ending:
                break
            of_this_run = not directory_lock.is_taken_over(name)
            try:
                if of_this_run and not self._disk.run(self._owner_knows, os.path.join(root, name)):
                    left = True
                    continue
                lock = self._disk.run(DirectoryLock.adopt, root, name)
            except DiskError as exc:
                # one bad directory is no failing disk, and must not hide the others
                self._seldom.warning("journal_not_read", "unreadable", error=str(exc))
                left = left or of_this_run
                continue
            if lock:
                left = left or of_this_run
                try:
                    self._recover(DeadStream(lock.path, self._settings))
                finally:
                    self._disk.run(lock.release)
        if not self._ending:
            self._reconciliation.look(recovered=not left)
        return self._pause_seconds

    def _owner_knows(self, path: str) -> bool:
        """Tell whether a stream has its lock, or has had none for as long as a lease lasts.

        Before, its owner may not know yet that somebody deleted the lock, and would acknowledge
        events into a journal that was recovered and deleted. Blocks.
        """
        if os.path.lexists(os.path.join(path, LOCK)):
            self._without_lock.pop(path, None)
            return True
        return now() - self._without_lock.setdefault(path, now()) > LEASE_SECONDS

    def _recover(self, dead: DeadStream) -> None:
        """Bring a stream's journals to the DLQ; none of them hides another."""
        events = batches = 0
        for path in self._disk.run(directory_lock.journals, dead.path):
            if self._ending:
                return
            if path in self._set_aside:
                continue
            if path not in self._done:
                found = self._read(dead, path)
                if found is None:
                    continue
                try:
                    events += self._keep(found, dead.of_this_run)
                except DiskError as exc:
                    if isinstance(exc.__cause__, (StoreUnavailable, NoCredentials)):
                        raise  # nor would it take the others
                    self._admission.failed(exc)
                    continue
                batches += 1
            self._delete(path)
        if batches:
            facts = {"stream": dead.name, "batches": batches, "events": events}
            log.warning("journals_recovered", extra=facts)

    def _delete(self, path: str) -> None:
        """Delete a journal whose batch is in the DLQ; what can't be deleted hides no other."""
        try:
            self._disk.run(files.remove, path)
            self._done.discard(path)
        except DiskError as exc:
            self._done.add(path)
            self._seldom.warning("journal_not_deleted", "kept", error=str(exc))

    def _read(self, dead: DeadStream, path: str) -> RecoveredJournal | None:
        """Return what a journal holds; None where it has to stay. None of them hides another."""
        try:
            return self._disk.run(dead.read, path)
        except DiskError as exc:
            # one bad file is no failing disk
            self._seldom.warning("journal_not_read", "unreadable", error=str(exc))
        except NotOurs as exc:
            self._set_aside.add(path)
            events = 0 if dead.of_this_run else exc.events  # else they stay pending
            self._ledger.set_aside(events, exc.reason, in_journal=True)
            self._seldom.warning("journal_set_aside", exc.reason, file=path, error=str(exc))
        except Exception:
            self._set_aside.add(path)
            self._counts.count(metrics.DLQ_QUARANTINED)
            log.exception("journal_not_understood", extra={"file": path})
        return None

    def _keep(self, found: RecoveredJournal, of_this_run: bool) -> int:
        """Bring what a journal holds to the DLQ; return the number of events."""
        dlq = self._disk.dlq
        for damage in found.damages:
            if damage.name in self._done or not self._bring(
                damage.events,
                partial(dlq.put_aside, *damage),
                partial(self._store_damage, damage),
                metrics.DROPPED["unreadable"],
                of_this_run,
            ):
                continue
            self._done.add(damage.name)
            self._counts.count(metrics.DLQ_QUARANTINED)
            facts = {"range": damage.name, "events": damage.events, "torn": damage.is_torn}
            log.log(
                logging.WARNING if damage.is_torn else logging.ERROR, "journal_damaged", extra=facts
            )
        batch = found.batch
        if batch is None or self._disk.run(dlq.holds, batch):
            return 0  # its writer may have counted it or not: ``Reconciliation`` finds out
        self._bring(
            batch.events,
            partial(dlq.write, batch, pack(batch, "recovered", ""), beside=True),
            partial(self._delivery.attempt, batch, recovered=True),
            metrics.STORED,
            of_this_run,
        )
        return batch.events

    def _bring(
        self,
        events: int,
        write: Callable[[], int | None],
        store: Callable[[], object],
        stored_as: int,
        of_this_run: bool,
    ) -> bool:
        """Write a file to the DLQ and count it; tell whether it was not there.

        Where the disk takes no file it is stored at once: what empties a disk needs no room.
        Raises the disk's error if the store does not take it either.
        """
        try:
            size = self._disk.run(write)
        except DiskError as exc:
            self._admission.failed(exc)
            try:
                store()
            except (StoreError, NotOurs) as failure:
                raise exc from failure
            self._ledger.recover(events, of_this_run=of_this_run, term=stored_as)
            return True
        if size is not None:
            self._ledger.recover(events, size, of_this_run=of_this_run)
        return size is not None

    def _store_damage(self, damage: Damage) -> None:
        """Store a damaged range where the quarantine's files go. Raises StoreError."""
        content = gzip(damage.data)
        name = dlq_file.name_for(damage.name, damage.events)
        key = ids.unreadable_key(self._settings.dlq_prefix, crc32_of(content), name)
        self._delivery.put_file(self._settings.raw_bucket, key, content)
