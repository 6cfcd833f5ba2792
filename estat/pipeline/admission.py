"""Keeps admission within what the disk can hold, so that what is accepted always fits.

Accepted events wait in memory, and in a journal, until they are stored. If every
upload failed from now on, all of them would have to become DLQ files; their
bytes (an upper bound: lines that are not compressed yet count in full) are the
worker's exposure. A request is admitted only if the exposure of all workers, the
journals, the DLQ and the request fit DLQ_MAX_SIZE_BYTES and the file system less
a reserve.
"""

import errno
import logging
import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import gevent

from estat.accounting import metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import SharedPage
from estat.config.settings import Settings
from estat.disk.dlq import Claim, DeadLetterQueue
from estat.disk.dlq_file import OVERHEAD_BYTES
from estat.disk.files import disk_errors
from estat.errors import DiskError, Refused
from estat.threads import Offload

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What is left free on the file system: a twentieth of it, but no more than this.
_RESERVE_BYTES = 64 * 1024 * 1024

#: How long a failing disk is left alone before it is tried again.
PROBE_SECONDS = 1.0

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FULL = ("dlq_full", "the dead letter queue is at its limit")
_FAILING = ("disk_error", "the disk that keeps accepted events is failing")


class Disk(NamedTuple):
    """The DLQ, and the threads in which it is read and written."""

    dlq: DeadLetterQueue
    threads: Offload

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Run ``work(*args)`` in a thread and return its result. Raises what it raises."""
        return self.threads.run(work, *args)

    def remove(self, claim: Claim, ledger: Ledger) -> None:
        """Remove a file that is out of the accounting. Raises DiskError; it is in again then."""
        with ledger.removal(claim.entry.events, claim.size_bytes):
            self.run(claim.remove)


class Admission:
    """What the DLQ's disk can still take, and whether it works at all."""

    def __init__(self, disk: Disk, page: SharedPage, counts: Metrics, settings: Settings) -> None:
        self.failing = False
        self.out_of_space = False
        self.max_bytes = settings.dlq_max_size_bytes
        self.drop_oldest = settings.dlq_overflow == "drop_oldest"
        self._disk = disk
        self._page = page
        self._counts = counts
        self._rows = [counts.row]
        self._free_bytes = self.max_bytes
        self._exposed = 0
        self._wanted_bytes = 1  # by the last request that was refused

    def admit(self, size_bytes: int) -> None:
        """Raise Refused unless a file with so many bytes would fit in the worst case."""
        if self.failing:
            raise Refused(*_FAILING)
        if self._full_for(size_bytes):
            self._wanted_bytes = size_bytes
            raise Refused(*_FULL)

    @property
    def full(self) -> bool:
        """Whether the request that was refused last would still be refused."""
        return self._full_for(self._wanted_bytes)

    def _full_for(self, size_bytes: int) -> bool:
        """Tell whether a file with so many bytes might not fit."""
        if self.out_of_space:
            return True
        if self.drop_oldest:
            return False
        in_dlq = exposed = 0
        for row in self._rows:
            in_dlq += row.cells[metrics.DLQ_BYTES] + row.cells[metrics.JOURNAL_BYTES]
            exposed += row.cells[metrics.EXPOSED_BYTES]
        needed = exposed + size_bytes + OVERHEAD_BYTES
        return needed > min(self.max_bytes - in_dlq, self._free_bytes)

    def expose(self, change_bytes: int, files: int = 0) -> None:
        """Take note that this worker holds so much more, or less, in memory.

        ``files`` are the DLQ files that it might take. A request counts as one of its
        own until its events have joined a batch that is open already.
        """
        self._exposed += change_bytes + files * OVERHEAD_BYTES
        self._counts.set(metrics.EXPOSED_BYTES, self._exposed)

    def dlq_bytes(self) -> int:
        """Return the size of the DLQ."""
        return sum(row.cells[metrics.DLQ_BYTES] for row in self._page.used_rows())

    @staticmethod
    def refusal(error: DiskError | None = None) -> Refused:
        """Return the answer to a request that a disk error has met; None: the disk hangs."""
        return Refused(*(_FULL if error and error.errno in _NO_SPACE else _FAILING))

    def failed(self, error: DiskError) -> None:
        """Stop admission: the disk refused a write."""
        if error.errno in _NO_SPACE:
            if not self.out_of_space:
                log.error("disk_full", extra={"error": str(error)})
            self.out_of_space = True
        elif not self.failing:
            self.failing = True
            log.error("disk_failing", extra={"error": str(error)})

    def refresh(self) -> None:
        """Look at the disk again; a failing one is tried with a small file."""
        self._rows = self._page.used_rows()
        try:
            if self.failing or self.out_of_space:
                self._disk.run(self._disk.dlq.probe)
                log.warning("disk_recovered")
                self.failing = self.out_of_space = False
            self._free_bytes = self._disk.run(self._free)
        except DiskError as exc:
            self.failed(exc)

    def watch(self, *repairs: Callable[[], object]) -> None:
        """Look at the disk once a second, for ever: a greenlet's loop; the drain kills it.

        Each of ``repairs`` tries again what the disk refused, and raises DiskError if it still
        does.
        """
        while True:
            for repair in repairs:
                try:
                    repair()
                except DiskError as exc:
                    self.failed(exc)
            self.refresh()
            gevent.sleep(PROBE_SECONDS)

    def _free(self) -> int:
        root = self._disk.dlq.root
        with disk_errors("statvfs", root):
            status = os.statvfs(root)
        total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
        return free - min(_RESERVE_BYTES, total // 20)


class Accounts(NamedTuple):
    """Where every stage says what became of events."""

    counts: Metrics
    ledger: Ledger
    admission: Admission
