"""Moves a batch from memory to the DLQ, under the policy for a full one."""

import errno
import logging
from collections.abc import Callable

from estat.accounting.ledger import Ledger
from estat.disk import dlq_file
from estat.disk.dlq import DeadLetterQueue
from estat.disk.journal import Journal, Journals
from estat.errors import DiskError
from estat.events.batch import Batch
from estat.pipeline.admission import Admission
from estat.threads import Offload

log = logging.getLogger(__name__)

#: Files that one write may drop to make room; a single batch is rarely larger than a few.
_MAX_DROPS = 100


class Spill:
    """Writes batches to the DLQ and keeps the books."""

    def __init__(
        self,
        dlq: DeadLetterQueue,
        journals: Journals,
        admission: Admission,
        ledger: Ledger,
        threads: Offload,
        may_write: Callable[[], object] = lambda: None,
    ) -> None:
        self._dlq = dlq
        self._journals = journals
        self._admission = admission
        self._ledger = ledger
        self._threads = threads
        self._may_write = may_write  # raises DiskError if not

    def spill(self, batch: Batch, reason: str, error: str, journal: Journal | None = None) -> None:
        """Write a batch to the DLQ; its journal then goes.

        Raises DiskError; the batch is then where it was.
        """
        try:
            self._may_write()
            size = self._write(batch, dlq_file.pack(batch, reason, error))
        except DiskError as exc:
            self._admission.failed(exc)
            raise
        self._ledger.spill(batch.events, size)
        if journal:
            self._journals.finish(journal)
        self._admission.expose(-len(batch.payload), files=-1)

    def make_room(self) -> None:
        """Drop the oldest file where the policy says so and the disk is full."""
        if self._admission.drop_oldest and self._admission.out_of_space:
            self._drop_oldest()

    def _write(self, batch: Batch, parts: list[bytes]) -> int:
        if self._admission.drop_oldest:
            limit = self._admission.max_bytes - sum(map(len, parts))
            for _ in range(_MAX_DROPS):
                if self._admission.dlq_bytes() <= limit or not self._drop_oldest():
                    break
        for _ in range(_MAX_DROPS):
            try:
                return self._threads.run(self._dlq.write, batch, parts)
            except DiskError as exc:
                full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
                if not (full and self._admission.drop_oldest and self._drop_oldest()):
                    raise
        return self._threads.run(self._dlq.write, batch, parts)

    def _drop_oldest(self) -> bool:
        """Delete the oldest file that nobody is sending; False if there is none."""
        claim = self._threads.run(self._dlq.oldest)
        if claim is None:
            return False
        events, size = claim.entry.events, claim.size_bytes
        with claim:
            self._ledger.drop(events, size, "overflow")
            with self._ledger.removal(events, size):
                self._threads.run(claim.remove)
        log.warning(
            "dlq_file_dropped", extra={"file": claim.entry.name, "events": claim.entry.events}
        )
        return True
