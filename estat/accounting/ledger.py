"""The accounting of accepted events: every move changes two terms.

    accepted + adopted
        = stored + pending + in the DLQ + set aside + handed over + dropped

holds in each process's row at any moment, because a method here changes both
sides in one step. So it holds for the sum of the rows, whoever wrote them and
whether they still live. The DLQ belongs to all workers, so a row's DLQ terms
are signed changes: one worker puts a file there, another replays it.

When a worker is killed, its pending events become orphans. They are still pending,
for they may lie in its journals. Whoever recovers those journals moves them on. When
no journal is left, the orphans that remain died with the worker, and are lost.

What is set aside stays on disk where it is, and only the process that found it knows of it. So it
is a gauge of that process. When the process ends and the server goes on, those events count as
before, until the next leader finds them.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import Row, SharedPage


class Terms(NamedTuple):
    """The terms of the accounting, in events."""

    accepted: int
    adopted: int
    stored: int
    pending: int
    in_dlq: int
    set_aside: int
    handed_over: int
    dropped: int

    @property
    def lost(self) -> int:
        """Events that no term accounts for; computed, never assumed."""
        accepted, adopted, *kept = self
        return accepted + adopted - sum(kept)


class Ledger:
    """Moves events between the terms, in one process's row."""

    def __init__(self, counts: Metrics) -> None:
        self._row = counts.row
        self._change = counts.row.change

    def accept(self, events: int) -> None:
        """Count new events as pending."""
        self._change({metrics.ACCEPTED: events, metrics.PENDING: events})

    def adopt(self, events: int, files: int, size_bytes: int) -> None:
        """Count DLQ files that a previous run of the server left."""
        self.correct(events, files, size_bytes)

    def lose(self, events: int, files: int, size_bytes: int, orphans: int) -> None:
        """Set aside events in a directory that is lost: nobody can look at them.

        ``events`` are those in its DLQ, and ``orphans`` are in its journals.
        """
        lost = {metrics.ORPHANED: -orphans, metrics.DIRECTORY_LOST: events + orphans}
        self._change(lost | _in_dlq(-events, -files, -size_bytes))

    def retract(self, events: int, size_bytes: int) -> None:
        """Subtract a file that was counted again because it could not be removed."""
        self._leave_dlq(events, size_bytes, {metrics.ADOPTED: -events})

    def store(self, events: int) -> None:
        """Count pending events as stored."""
        self._change({metrics.PENDING: -events, metrics.STORED: events})

    def spill(self, events: int, size_bytes: int) -> None:
        """Count pending events as a DLQ file."""
        self._change({metrics.PENDING: -events} | _enqueued(events, size_bytes))

    def recover(
        self,
        events: int,
        size_bytes: int = 0,
        *,
        of_this_run: bool,
        term: int = metrics.DLQ_ENQUEUED,
    ) -> None:
        """Count events of a dead process's journal as a DLQ file.

        Those of this run of the server are pending until then, those of another one are adopted.
        ``term`` is another cell if they became no file: STORED, or one of DROPPED.
        """
        came_from = {metrics.ORPHANED: -events} if of_this_run else {metrics.ADOPTED: events}
        is_file = term == metrics.DLQ_ENQUEUED
        became = _enqueued(events, size_bytes) if is_file else {term: events}
        self._change(came_from | became)

    def set_aside(
        self, events: int, reason: str, *, files: int = 1, in_journal: bool = False
    ) -> None:
        """Count a file's events as not ours to send; ``reason`` is a key of SET_ASIDE.

        The file stays where it is, so it counts as a file and in bytes as before. The events of a
        journal of another run are adopted.
        """
        change = {metrics.FILES_ASIDE[reason]: files, metrics.SET_ASIDE[reason]: events}
        if in_journal:
            change[metrics.SET_ASIDE_JOURNALS] = events
        self._change(change)

    def orphan(self) -> int:
        """Turn the pending events of this row, whose process is dead, into orphans; return them.

        A change that was not finished is completed, or forgotten, first.
        """
        self._row.heal()
        pending = self._row.cells[metrics.PENDING]
        self._change({metrics.PENDING: -pending, metrics.ORPHANED: pending})
        return pending

    def replay(self, events: int, size_bytes: int) -> None:
        """Count a DLQ file's events as stored; the file goes next (see ``Disk.remove``)."""
        became = {metrics.STORED: events, metrics.DLQ_REUPLOADED: events}
        self._leave_dlq(events, size_bytes, became)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Mark, while the block runs, that a DLQ file changes and is not counted yet."""
        self._change({metrics.CHANGING: 1})
        try:
            yield
        finally:
            self._change({metrics.CHANGING: -1})

    def hand_over(self, events: int, size_bytes: int) -> None:
        """Count a DLQ file's events as handed over to FALLBACK_BUCKET."""
        self._leave_dlq(events, size_bytes, {metrics.HANDED_OVER: events})

    def drop(self, events: int, size_bytes: int, reason: str) -> None:
        """Count a DLQ file's events as dropped; ``reason`` is a key of DROPPED."""
        self._leave_dlq(events, size_bytes, {metrics.DROPPED[reason]: events})

    def correct(self, events: int, files: int, size_bytes: int, orphans: int = 0) -> None:
        """Make the terms agree with what lies on disk, given the DLQ's differences.

        ``orphans`` end to be pending. Some are in DLQ files that nobody had counted. The rest died
        with their process, and counts as lost, as do events of files that vanished. If the files
        hold more than ``orphans``, the difference is adopted. ``orphans`` is negative where
        journals held more than was counted.
        """
        adopted = max(0, max(0, events) - orphans)
        came_from = {metrics.ORPHANED: -orphans, metrics.ADOPTED: adopted}
        self._change(came_from | _in_dlq(events, files, size_bytes))

    def _leave_dlq(self, events: int, size_bytes: int, became: dict[int, int]) -> None:
        """Take a file out of the DLQ; ``became`` is how its events count from now on."""
        self._change(became | _in_dlq(-events, -1, -size_bytes))


def _in_dlq(events: int, files: int, size_bytes: int) -> dict[int, int]:
    return {metrics.DLQ_EVENTS: events, metrics.DLQ_FILES: files, metrics.DLQ_BYTES: size_bytes}


def _enqueued(events: int, size_bytes: int) -> dict[int, int]:
    return {metrics.DLQ_ENQUEUED: events} | _in_dlq(events, 1, size_bytes)


def in_dlq(rows: Iterable[Row]) -> tuple[int, int, int]:
    """Return the DLQ's files, their events and bytes, including those that are set aside."""
    copies = [row.read() for row in rows]
    cells = (metrics.DLQ_FILES, metrics.DLQ_EVENTS, metrics.DLQ_BYTES)
    count, events, size_bytes = (sum(copy[cell] for copy in copies) for cell in cells)
    return count, events, size_bytes


def terms(page: SharedPage) -> Terms:
    """Add up the terms of all rows, each row taken whole."""
    totals = metrics.totals(page)
    return Terms(
        accepted=totals[metrics.ACCEPTED],
        adopted=totals[metrics.ADOPTED],
        stored=totals[metrics.STORED],
        pending=totals[metrics.PENDING],
        in_dlq=totals[metrics.DLQ_EVENTS],
        set_aside=totals[metrics.DIRECTORY_LOST]
        + sum(totals[cell] for cell in metrics.SET_ASIDE.values()),
        handed_over=totals[metrics.HANDED_OVER],
        dropped=sum(totals[cell] for cell in metrics.DROPPED.values()),
    )
