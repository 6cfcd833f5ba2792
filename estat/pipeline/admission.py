"""Keeps admission within what the disk can hold, so that what is accepted always fits.

Accepted events wait in memory, and in a journal, until they are stored. If every
upload failed from now on, all of them would have to become DLQ files; their
bytes (an upper bound: lines that are not compressed yet count in full) are the
worker's exposure. A request is admitted only if the exposure of all workers, the
journals, the DLQ, the other servers' directories in DLQ_DIR and the request fit
DLQ_MAX_SIZE_BYTES, and the file system less a reserve. Where the file system counts its
files (inodes), they are room as bytes are.
"""

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import gevent

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import SharedPage
from estat.config.settings import Settings
from estat.disk.dlq import Claim, DeadLetterQueue, Totals
from estat.disk.dlq_file import OVERHEAD_BYTES
from estat.disk.files import disk_errors
from estat.errors import DiskError, Refused
from estat.pipeline.hours import Hours
from estat.threads import Offload

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What is left free on the file system: a twentieth of it, but no more than this.
_RESERVE_BYTES = 64 * 1024 * 1024

#: How long a failing disk is left alone before it is tried again.
PROBE_SECONDS = 1.0

#: Files that are left free: a twentieth of what the file system can have, but no more than
#: ``_RESERVE_FILES``, and no fewer than ``_FEW_FILES``. Journals, directories and temporary files
#: of batches that become DLQ files need some beyond those of the batches.
_RESERVE_FILES, _FEW_FILES = 1024, 16

#: With so many files free nobody need count those that a second may bring.
_PLENTY_FILES = 1_000_000

#: What a worker takes of the room beforehand, so that it need not look at what all workers hold for
#: each request: so many bytes, and no more than this part of its share of what is left.
_MOST_AHEAD_BYTES, _PART_AHEAD = 1024 * 1024, 8

_FULL, _FAILING = "dlq_full", "disk_error"

_AT_LIMIT = "the dead letter queue is at its limit"
_NO_ROOM = "the disk that keeps accepted events has no room left"
_NO_FILES = "the disk that keeps accepted events has room for no more files (inodes)"
#: What a client is told when the disk refused to write, by the number of the error.
_TOLD = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: "the quota of the disk that keeps accepted events is used up",
    errno.EFBIG: "a file on disk may not grow further: the process has a limit (ulimit -f)",
    errno.EROFS: "the disk that keeps accepted events is read-only",
}
_FAILED = "the disk that keeps accepted events is failing"


class Disk(NamedTuple):
    """The DLQ, and the threads in which it is read and written."""

    dlq: DeadLetterQueue
    threads: Offload

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Run ``work(*args)`` in a thread and return its result. Raises what it raises."""
        return self.threads.run(work, *args)

    def remove(self, claim: Claim, accounting: Ledger) -> None:
        """Remove a file that is out of the accounting. Raises DiskError; it is in again then.

        It leaves the accounting before it leaves the disk. After a kill in between, the next start
        counts it as adopted. In the other order its events would count as lost.
        """
        with accounting.changing():
            try:
                self.run(claim.remove)
            except DiskError:
                accounting.adopt(claim.entry.events, 1, claim.size_bytes)
                raise


class Admission:
    """What the DLQ's disk can still take, and whether it works at all."""

    def __init__(
        self,
        disk: Disk,
        page: SharedPage,
        counts: Metrics,
        settings: Settings,
        prove: Callable[[], object] = lambda: None,
    ) -> None:
        self.failing = False
        self.out_of_space = False
        self._limit_bytes = settings.dlq_max_size_bytes
        self.drop_oldest = settings.dlq_overflow == "drop_oldest"
        self._disk = disk
        #: Proves that the directory is this server's; raises DiskError.
        self._prove = prove
        self._page = page
        self._counts = counts
        self._rows = [counts.row]
        self._told = _FAILED  # of the error that was met last
        self._free_bytes = self._limit_bytes
        self._most_files = _PLENTY_FILES  # that the DLQ may have, with those of all batches
        self._exposed = self._exposed_files = 0
        self._ahead = 0  # bytes that others count as exposed here, and that are still free
        self._wanted_bytes = 1  # by the last request that was refused

    def admit(self, size_bytes: int) -> None:
        """Raise Refused unless a file with so many bytes would fit in the worst case.

        Whoever is admitted exposes them before anything else runs.
        """
        if self.failing:
            raise Refused(_FAILING, self._told)
        needed = size_bytes + OVERHEAD_BYTES
        with_journal = needed + size_bytes  # it lies beside the memory that it is a copy of
        if with_journal <= self._ahead:
            self._ahead -= with_journal
            return
        room, why = self._room()
        if needed > room:
            self._give_back()
            self._wanted_bytes = size_bytes
            raise Refused(_FULL, why)
        most = min((room - needed) // (len(self._rows) + 1) // _PART_AHEAD, _MOST_AHEAD_BYTES)
        self._ahead = most if self._most_files >= _PLENTY_FILES else 0

    @property
    def full(self) -> bool:
        """Whether the request that was refused last would still be refused."""
        return self._wanted_bytes + OVERHEAD_BYTES > self._room()[0]

    def _room(self) -> tuple[int, str]:
        """Return the bytes that a file may have in the worst case, and what tells why no more."""
        if self.out_of_space:
            return -1, self._told
        if self.drop_oldest:
            return sys.maxsize, ""
        if self._most_files < _PLENTY_FILES and self._files() >= self._most_files:
            return -1, _NO_FILES
        in_dlq, exposed = 0, -self._ahead  # which is free for this worker
        for row in self._rows:
            in_dlq += row.cells[metrics.DLQ_BYTES] + row.cells[metrics.JOURNAL_BYTES]
            in_dlq += row.cells[metrics.OTHERS_BYTES]
            exposed += row.cells[metrics.EXPOSED_BYTES]
        return min(
            (self._limit_bytes - in_dlq - exposed, _AT_LIMIT),
            (self._free_bytes - exposed, _NO_ROOM),
        )

    def _give_back(self) -> None:
        """Let others have what this worker took beforehand."""
        self._ahead = 0
        self.expose(0)

    def _files(self) -> int:
        """Return how many files the DLQ might soon have; a batch may have its journal beside it."""
        cells = [row.cells for row in self._rows]
        return sum(c[metrics.DLQ_FILES] + 2 * c[metrics.EXPOSED_FILES] for c in cells)

    def expose(self, change_bytes: int, files: int = 0) -> None:
        """Take note that this worker holds so much more, or less, in memory.

        ``files`` are the DLQ files that it might take. A request counts as one of its
        own until its events have joined a batch that is open already.
        """
        self._exposed += change_bytes + files * OVERHEAD_BYTES
        self._exposed_files += files
        self._counts.set(metrics.EXPOSED_BYTES, self._exposed + self._ahead)
        self._counts.set(metrics.EXPOSED_FILES, self._exposed_files)

    @property
    def max_bytes(self) -> int:
        """What this server may use of DLQ_MAX_SIZE_BYTES, which holds for DLQ_DIR as a whole."""
        others = sum(row.cells[metrics.OTHERS_BYTES] for row in self._page.used_rows())
        return self._limit_bytes - others

    def in_dlq(self) -> Totals:
        """Return what lies in the DLQ by the accounting, including what is set aside."""
        return Totals(*ledger.in_dlq(self._page.used_rows()))

    @staticmethod
    def refusal(error: DiskError | None = None) -> Refused:
        """Return the refusal after a disk error; without an error the disk hangs."""
        if error is None:
            return Refused(_FAILING, _FAILED)
        return Refused(_FULL if error.no_space else _FAILING, _what(error))

    def failed(self, error: DiskError) -> None:
        """Stop admission: the disk refused a write."""
        self._told = _what(error)
        self._give_back()
        if error.no_space:
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
            self._prove()
            if self.failing or self.out_of_space:
                self._disk.run(self._disk.dlq.probe)
                log.warning("disk_recovered")
                self.failing = self.out_of_space = False
            self._free_bytes, free_files = self._disk.run(self._free)
            in_dlq = sum(row.cells[metrics.DLQ_FILES] for row in self._rows)
            self._most_files = in_dlq + free_files
            self._give_back()  # what was taken by the last look
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

    def _free(self) -> tuple[int, int]:
        """Return the bytes and the files that the file system can still take, less a reserve."""
        root = self._disk.dlq.root
        with disk_errors("statvfs", root):
            status = os.statvfs(root)
        total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
        free -= min(_RESERVE_BYTES, total // 20)
        if not status.f_files:
            return free, _PLENTY_FILES  # it does not count them
        reserve = max(_FEW_FILES, min(_RESERVE_FILES, status.f_files // 20))
        return free, status.f_favail - reserve


def _what(error: DiskError) -> str:
    """Return the text for a client about an error of the disk."""
    return _TOLD.get(error.errno or 0, _FAILED)


class Accounts(NamedTuple):
    """Where every stage says what became of events."""

    counts: Metrics
    ledger: Ledger
    admission: Admission
    hours: Hours
