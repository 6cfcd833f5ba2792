"""Makes the accounting agree with the DLQ directory again.

They differ after a worker was killed between a rename or an unlink and its
entry. Seen once, a file may belong to a worker that is about to enter it; so
only a difference that stands is corrected. No time of a file tells how long it
does: clocks step, and files may come from a time when the clock was ahead.
"""

import logging
import time
from collections.abc import Callable

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.shared_memory import OUTDATED, SharedPage
from estat.disk.dlq import Totals
from estat.disk.incoming import Incoming
from estat.pipeline.admission import Disk

log = logging.getLogger(__name__)

_SETTLED_SECONDS = 10.0  # a writer counts its file well within this
_LOOK_SECONDS = 5.0  # how often a DLQ that counts as empty is looked at all the same


class Reconciliation:
    """Compares accounting and directory: when a worker begins to lead, and when either seems empty.

    Nothing is compared while a slot comes from a dead server's directory.
    """

    def __init__(
        self,
        disk: Disk,
        ledger: Ledger,
        page: SharedPage,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk
        self._incoming = Incoming(disk.dlq)
        self._ledger = ledger
        self._page = page
        self._clock = clock
        self._agreed = False  # since this worker leads
        self._look_at = float("-inf")
        self._mismatch: tuple[Totals, Totals] | None = None
        self._mismatch_since = 0.0

    def booked(self) -> Totals:
        """Return what lies in the DLQ by the accounting."""
        return Totals(*ledger.in_dlq(self._page))

    def orphaned(self) -> int:
        """Return how many pending events dead processes left."""
        return sum(row.read()[metrics.ORPHANED] for row in self._page.used_rows())

    def unknown(self) -> Totals | None:
        """Return what lies in the DLQ and is not counted; None while that changes."""
        booked = self.booked()
        found = self._found()
        return _difference(found, booked) if found and self.booked() == booked else None

    def enter(self, unknown: Totals) -> None:
        """Count what ``unknown`` has found: first as events that dead processes left."""
        # a writer that was killed between its file's rename and the entry left events on
        # disk that still count as pending
        orphans = max(0, min(unknown.events, self.orphaned()))
        self._ledger.correct(unknown.events, unknown.files, unknown.size_bytes, orphans=orphans)

    def first_led(self, booked: Totals) -> None:
        """Compare until both agree: the leader before this one may have been killed."""
        self._agreed = self._agreed or self._look(booked)

    def booked_empty(self, booked: Totals) -> None:
        """Look, now and then, for files that are not counted."""
        self._look(booked)

    def found_empty(self, booked: Totals) -> None:
        """Look for files that are counted and that a scan did not find."""
        self._compare(booked)

    def _look(self, booked: Totals) -> bool:
        """Compare, unless a moment ago; tell if that was done, and no difference is left."""
        if self._clock() < self._look_at:
            return False
        self._look_at = self._clock() + _LOOK_SECONDS
        return self._compare(booked)

    def _compare(self, booked: Totals) -> bool:
        """Correct a difference that all looks have found for long enough; tell if none is left."""
        found = self._found()
        now = self._clock()
        if found is None or found == booked or self.booked() != booked:
            self._mismatch = None
        elif self._mismatch != (booked, found):
            self._mismatch = (booked, found)
            self._mismatch_since = now
        elif now - self._mismatch_since >= _SETTLED_SECONDS:
            self._mismatch = None
            self.enter(_difference(found, booked))
            for aside, reason in self._disk.run(self._disk.dlq.no_more_aside):
                self._ledger.set_aside(-aside, reason)
            events = found.events - booked.events
            facts = {"unknown": max(0, events), "vanished": max(0, -events)}
            log.warning("dlq_recounted", extra={"files": found.files, **facts})
            return True
        return found == booked

    def _found(self) -> Totals | None:
        """Return what lies in the DLQ; None while that can't be compared.

        A slot that comes may be counted or not, and a worker that still has a directory that is
        lost counts what lies there.
        """
        found = self._disk.run(self._disk.dlq.walk)
        unsure = self._page.directory[OUTDATED] or self._disk.run(self._incoming.waiting)
        return None if unsure else found


def _difference(found: Totals, booked: Totals) -> Totals:
    return Totals(*(there - entered for there, entered in zip(found, booked, strict=True)))
