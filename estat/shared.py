"""A page of memory that the arbiter and all workers share.

It is anonymous memory, mapped before the first fork, so it lives as long as any
process of the server and needs no file. It holds the drain flag and one row of
signed 64-bit cells for each worker slot; ``metrics`` says what the cells mean.

A row has one writer at a time: the process that was given the slot. Readers are
anyone. Cell 0 of a row is its sequence: odd while the writer is in the middle
of a change, so that a reader can take a row whole (a seqlock). The writer never
yields between ``begin`` and ``end``; one that died there leaves an odd sequence
behind, and the reader then takes the row as it is.
"""

import mmap
import time

#: Slot 0 is the arbiter's; a worker gets the lowest free one. A reload runs old
#: and new workers side by side, hence twice the largest WEB_CONCURRENCY and some.
SLOTS = 140
ARBITER = 0

SERVING, DRAINING, HURRYING = 0, 1, 2

# A change takes microseconds. A reader that meets a dead writer gives up after some 50 ms.
_READ_ATTEMPTS, _SPINS, _PAUSE_SECONDS = 100, 50, 0.001
_CELL_BYTES = 8


class Row:
    """One slot's cells."""

    __slots__ = ("cells",)

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells

    def begin(self) -> None:
        """Start a change of several cells."""
        self.cells[0] += 1

    def end(self) -> None:
        """End the change: readers may take the row again."""
        self.cells[0] += 1

    def heal(self) -> None:
        """Make the sequence even, after a writer died in the middle of a change."""
        if self.cells[0] & 1:
            self.cells[0] += 1

    def read(self) -> list[int]:
        """Return all cells as they were at one moment."""
        for attempt in range(_READ_ATTEMPTS):
            before = self.cells[0]
            if not before & 1:
                copy = self.cells.tolist()
                if self.cells[0] == before:
                    return copy
            if attempt >= _SPINS:
                time.sleep(_PAUSE_SECONDS)  # its writer may be waiting for the CPU
        return self.cells.tolist()


class SharedPage:
    """The drain flag and ``SLOTS`` rows of ``columns`` cells, all zero at first."""

    def __init__(self, columns: int) -> None:
        self.started = time.time()  # of the server
        self._flag = mmap.mmap(-1, mmap.PAGESIZE)
        memory = mmap.mmap(-1, SLOTS * columns * _CELL_BYTES)
        cells = memoryview(memory).cast("q")
        self.rows = [Row(cells[i * columns : (i + 1) * columns]) for i in range(SLOTS)]

    @property
    def state(self) -> int:
        """SERVING, DRAINING or HURRYING."""
        return self._flag[0]

    @state.setter
    def state(self, value: int) -> None:
        self._flag[0] = value

    def used_rows(self) -> list[Row]:
        """Return the rows that were ever written to."""
        return [row for row in self.rows if row.cells[0]]
