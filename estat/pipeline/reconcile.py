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
from estat.accounting.shared_memory import SharedPage
from estat.disk.dlq import Inventory, Totals
from estat.pipeline.admission import Disk

log = logging.getLogger(__name__)

_SETTLED_SECONDS = 10.0  # a writer counts its file well within this
_LOOK_SECONDS = 5.0  # how often a DLQ that counts as empty is looked at all the same
_NOTHING = Totals(0, 0, 0)


class Reconciliation:
    """Compares accounting and directory where that is cheap: when either seems empty."""

    def __init__(
        self,
        disk: Disk,
        ledger: Ledger,
        page: SharedPage,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk
        self._ledger = ledger
        self._page = page
        self._clock = clock
        self._led = False
        self._look_at = float("-inf")
        self._mismatch: tuple[Totals, Totals] | None = None
        self._mismatch_since = 0.0

    def booked(self) -> Totals:
        """Return what lies in the DLQ by the accounting."""
        return Totals(*ledger.files(self._page))

    def orphaned(self) -> int:
        """Return how many pending events dead processes left."""
        return sum(row.read()[metrics.ORPHANED] for row in self._page.used_rows())

    def unknown(self) -> Totals | None:
        """Return what lies in the DLQ and is not counted; None while that changes."""
        booked = self.booked()
        found = self._disk.run(self._disk.dlq.walk)
        return _difference(found, booked) if self.booked() == booked else None

    def enter(self, unknown: Totals) -> None:
        """Count what ``unknown`` has found: first as events that dead processes left."""
        # a writer that was killed between its file's rename and the entry left events on
        # disk that still count as pending
        orphans = max(0, min(unknown.events, self.orphaned()))
        self._ledger.correct(unknown.events, unknown.files, unknown.size_bytes, orphans=orphans)

    def first_led(self) -> None:
        """Subtract files that a previous run's worker replayed after startup had counted them.

        Workers outlive a killed arbiter for a moment, and one of them may still replay; now
        that we lead, none does. Before a worker of ours first leads, only ``drop_oldest``
        removes files, the oldest first, so nothing else has taken what was there at the start
        and is not now.
        """
        if self._led:
            return
        rows = [row.read() for row in self._page.used_rows()]
        if not any(row[metrics.LED] for row in rows):
            gone = self._gone(rows)
            self._ledger.disown(gone.events, gone.files, gone.size_bytes)
            if gone.files:
                log.info("dlq_disowned", extra={"files": gone.files, "events": gone.events})
        self._led = True

    def _gone(self, rows: list[list[int]]) -> Totals:
        """Return what was counted at the start, is not there now and was not dropped."""
        counted, names = self._page.adopted
        adopted = Totals(*counted)
        if not adopted.files:
            return _NOTHING
        left = self._disk.run(self._disk.dlq.left_of, Inventory(adopted, names))
        cells = ([metrics.DROPPED_FILES], metrics.DROPPED.values(), [metrics.DROPPED_BYTES])
        dropped = Totals(*(sum(row[cell] for row in rows for cell in term) for term in cells))
        gone = _difference(_difference(adopted, left), dropped)
        return gone if gone.files > 0 else _NOTHING

    def booked_empty(self, booked: Totals) -> None:
        """Look, now and then, for files that are not counted."""
        if self._clock() >= self._look_at:
            self._look_at = self._clock() + _LOOK_SECONDS
            self._compare(booked)

    def found_empty(self, booked: Totals) -> None:
        """Look for files that are counted and that a scan did not find."""
        self._compare(booked)

    def _compare(self, booked: Totals) -> None:
        """Correct a difference that all looks have found for long enough."""
        found = self._disk.run(self._disk.dlq.walk)
        now = self._clock()
        if found == booked or self.booked() != booked:
            self._mismatch = None
        elif self._mismatch != (booked, found):
            self._mismatch = (booked, found)
            self._mismatch_since = now
        elif now - self._mismatch_since >= _SETTLED_SECONDS:
            self._mismatch = None
            self.enter(_difference(found, booked))
            events = found.events - booked.events
            facts = {"unknown": max(0, events), "vanished": max(0, -events)}
            log.warning("dlq_recounted", extra={"files": found.files, **facts})


def _difference(found: Totals, booked: Totals) -> Totals:
    return Totals(*(there - entered for there, entered in zip(found, booked, strict=True)))
