"""Makes the accounting agree with what lies on disk again.

They differ after a worker was killed between a rename or an unlink and the count of it, and after
it died with events that are in no journal. A worker may be about to count a file that is seen
once. So a difference is corrected only if it stays for some time. The times of files can't tell
for how long it stays, because clocks step.
"""

import logging
import time
from collections.abc import Callable

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.shared_memory import OUTDATED, SharedPage
from estat.disk.dlq import Totals
from estat.pipeline.admission import Disk

log = logging.getLogger(__name__)

_SETTLED_SECONDS = 10.0  # a writer counts its file well within this
_SHARE = 50  # a look takes at most so small a part of the time, however many files there are


class Reconciliation:
    """Compares the accounting with the DLQ, as long as this worker leads."""

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
        self._next = self._since = 0.0
        #: What all looks since ``_since`` have found; None if the last one could not tell.
        self._seen: tuple[Totals, int, bool] | None = None

    def look(self, *, recovered: bool) -> None:
        """Correct a difference that all looks have found for long enough. Raises DiskError.

        ``recovered`` says that dead workers of this server have left no journal. Then their
        pending events that are in no file are gone.
        """
        started = self._clock()
        # a disk may keep a writer waiting for longer than a difference has to stand
        if started < self._next or any(r.cells[metrics.CHANGING] for r in self._page.used_rows()):
            return
        seen = self._compared(recovered)
        now = self._clock()
        self._next = now + _SHARE * (now - started)
        if seen is None or seen != self._seen:
            self._seen, self._since = seen, now
        elif now - self._since >= _SETTLED_SECONDS:
            self._seen = None
            self._correct(*seen)

    def _compared(self, recovered: bool) -> tuple[Totals, int, bool] | None:
        """Return what is on disk beyond the accounting, and the pending events of the dead.

        None while that changes, or a worker counts what is in a directory that is lost.
        """
        counted = self._counted()
        found = self._disk.run(self._disk.dlq.walk)
        if self._page.directory[OUTDATED] or self._counted() != counted:
            return None
        orphans = sum(row.read()[metrics.ORPHANED] for row in self._page.used_rows())
        return Totals(*(a - b for a, b in zip(found, counted, strict=True))), orphans, recovered

    def _counted(self) -> Totals:
        return Totals(*ledger.in_dlq(self._page.used_rows()))

    def _correct(self, beyond: Totals, orphans: int, recovered: bool) -> None:
        # a writer that was killed between its file's rename and the count left events on
        # disk that are still pending
        in_files = max(0, min(beyond.events, orphans))
        gone = orphans - in_files if recovered else 0
        self._ledger.correct(beyond.events, beyond.files, beyond.size_bytes, in_files + gone)
        if any(beyond):
            for aside, reason in self._disk.run(self._disk.dlq.no_more_aside):
                self._ledger.set_aside(-aside, reason, files=-1)
            facts = {"unknown": max(0, beyond.events), "vanished": max(0, -beyond.events)}
            log.warning("dlq_recounted", extra={"files": self._counted().files, **facts})
        if gone:
            # a journal that held more than was counted is no loss
            level = logging.ERROR if gone > 0 else logging.INFO
            log.log(level, "orphans_settled", extra={"events_lost": max(0, gone)})
