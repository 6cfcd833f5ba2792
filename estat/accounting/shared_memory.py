"""A page of memory that the arbiter and all workers share.

It is anonymous memory, mapped before the first fork, so it lives as long as any
process of the server and needs no file. It holds the drain flag, what is known of the
server's directory, and one row of
signed 64-bit cells for each worker slot; ``metrics`` says what the cells mean.

A row has one writer at a time: the process that was given the slot. Readers are
anyone. Cell 0 of a row is its sequence: odd while the writer is in the middle
of a change, so that a reader can take a row whole (a seqlock). The writer never
yields in between.

A writer may be killed at any instruction. So a change is first written down whole,
as the values that the cells will have, in the last cells of the row, its plan; then
it is carried out. Whoever finds the sequence odd and its writer dead carries it out
again: from that point on it happens as a whole, before it not at all.
"""

import mmap
import time
from collections.abc import Mapping, MutableSequence

#: Slot 0 is the arbiter's; a worker gets the lowest free one. A reload runs old and new
#: workers side by side, and the next one may come before the old ones are gone: four times
#: the largest WEB_CONCURRENCY, and some. A slot that was never used costs next to nothing.
SLOTS = 270
ARBITER = 0

#: What the whole server does: it serves; it serves for DRAIN_DELAY more, with /ready red; its
#: workers stop; and they do so without a further upload.
SERVING, DRAINING, STOPPING, HURRYING = range(4)

#: Cells of the server's directory: when a worker last proved that it is its own (seconds, by the
#: clock of leases); whether one says that it is lost; how many the arbiter has given up; and how
#: many workers still have one of those.
PROVEN, LOST, GIVEN_UP, OUTDATED = range(4)

# A change takes microseconds. A reader that meets a dead writer gives up after some 50 ms.
_READ_ATTEMPTS, _SPINS, _PAUSE_SECONDS = 100, 50, 0.001
_CELL_BYTES = 8

#: Cells that may change at once.
_MAX_CHANGES = 24
#: How many changes are planned, then the place and the new value of each.
_PLAN_CELLS = 1 + 2 * _MAX_CHANGES


class Row:
    """One slot's cells."""

    __slots__ = ("_plan", "cells")

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells
        self._plan = len(cells) - _PLAN_CELLS

    def change(self, changes: Mapping[int, int]) -> None:
        """Add to several cells at once, whatever happens: all of it, or nothing."""
        cells, plan = self.cells, self._plan
        cells[0] += 1
        at = plan
        for index, change in changes.items():
            cells[at + 1] = index
            cells[at + 2] = cells[index] + change
            at += 2
        cells[plan] = len(changes)
        _carry_out(cells, plan)
        cells[0] += 1

    def heal(self) -> None:
        """Complete, or forget, the change in the middle of which a writer died."""
        if self.cells[0] & 1:
            _carry_out(self.cells, self._plan)
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
        copy = self.cells.tolist()
        _carry_out(copy, self._plan)
        return copy


def _carry_out(cells: MutableSequence[int] | memoryview, plan: int) -> None:
    for at in range(plan + 1, plan + 1 + 2 * cells[plan], 2):
        cells[cells[at]] = cells[at + 1]
    cells[plan] = 0


class SharedPage:
    """The drain flag, the directory's cells and ``SLOTS`` rows of ``columns`` cells.

    All are zero at first.
    """

    def __init__(self, columns: int) -> None:
        self._flag = mmap.mmap(-1, mmap.PAGESIZE)
        self.directory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        columns += _PLAN_CELLS
        memory = mmap.mmap(-1, SLOTS * columns * _CELL_BYTES)
        cells = memoryview(memory).cast("q")
        self.rows = [Row(cells[i * columns : (i + 1) * columns]) for i in range(SLOTS)]

    @property
    def state(self) -> int:
        """SERVING, DRAINING, STOPPING or HURRYING."""
        return self._flag[0]

    @state.setter
    def state(self, value: int) -> None:
        self._flag[0] = value

    def used_rows(self) -> list[Row]:
        """Return the rows that were ever written to."""
        return [row for row in self.rows if row.cells[0]]
