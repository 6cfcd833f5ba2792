"""Turns waiting submissions into batches: the one place where events get their identity.

It takes all that waits and works it off in groups. A group is what goes into
one batch at one time: its lines are stamped with id and time, kept (here a
journal will append them, once for the group), and acknowledged. Numbers are
given in this order and never twice, so a stream has no gaps.
"""

import time
from collections import deque
from functools import lru_cache

from estat import event, identity
from estat.batch import OpenBatch
from estat.batcher import Batcher
from estat.buffer import Buffer, Submission
from estat.capacity import Capacity
from estat.config import Settings
from estat.offload import Offload
from estat.sealer import Sealer

#: A partition can only change on a quarter of an hour: no time zone is offset by less.
_PARTITION_SECONDS = 900

#: Submissions in one group at most: stamping them is the longest time that the event
#: loop is held, and this many take about a millisecond.
_GROUP_SUBMISSIONS = 500


class Collector:
    """The loop from the buffer to the sealer, for one stream."""

    def __init__(
        self, stream: str, buffer: Buffer, batcher: Batcher, sealer: Sealer, capacity: Capacity,
        threads: Offload, settings: Settings,
    ) -> None:  # fmt: skip
        self.events = 0  # numbered so far
        self.batches = 0
        self._stream = stream
        self._buffer = buffer
        self._batcher = batcher
        self._sealer = sealer
        self._capacity = capacity
        self._threads = threads
        self._settings = settings
        self._batch: OpenBatch | None = None
        self._flush = False
        self._ending = False
        self._partition_of = lru_cache(maxsize=4)(self._partition)

    def run(self) -> None:
        """Collect until ``end``, then seal what is left and return."""
        while True:
            ending = self._ending
            patience = 0.0 if ending else self._batcher.seconds_left(time.monotonic())
            waiting = self._buffer.take(patience)
            while waiting:
                self._collect(waiting)
            if ending or self._flush or self._due():
                self._seal()
            self._flush = False
            if ending:
                return

    def flush(self) -> None:
        """Seal the open batch now, whatever its size and age."""
        self._flush = True
        self._buffer.wake()

    def end(self) -> None:
        """Make ``run`` work off what waits, seal it, and return."""
        self._ending = True
        self._buffer.wake()

    def _due(self) -> bool:
        return self._batcher.seconds_left(time.monotonic()) == 0

    def _collect(self, waiting: deque[Submission]) -> None:
        """Work off one group: at least one submission, no more than the open batch takes."""
        now = time.time()
        partition = self._partition_of(int(now) // _PARTITION_SECONDS)
        first = waiting[0]
        if self._batch and not self._batcher.takes(len(first.lines), first.size_bytes, partition):
            self._seal()
        opened = self._batch is None
        batch = self._batch or self._open(partition, now)
        group: list[Submission] = []
        while waiting and len(group) < _GROUP_SUBMISSIONS:
            submission = waiting[0]
            events, size = len(submission.lines), submission.size_bytes
            if not self._batcher.takes(events, size, partition):
                break
            self._batcher.add(events, size)
            group.append(waiting.popleft())
        self._commit(batch, group, now)
        # each request was admitted as if it took a file of its own
        self._capacity.expose(0, files=opened - len(group))
        batch.compress(self._threads)
        if self._batcher.full:
            self._seal()

    def _commit(self, batch: OpenBatch, group: list[Submission], now: float) -> None:
        number = self.events
        lines: list[bytes] = []
        for submission in group:
            for line in submission.lines:
                number += 1
                lines.append(event.stamp(self._stream, number, now) + line)
        self.events = number
        batch.add(lines, sum(submission.size_bytes for submission in group), now)

    def _open(self, partition: str, now: float) -> OpenBatch:
        self.batches += 1
        settings = self._settings
        key = identity.object_key(
            settings.raw_prefix, partition, now, settings.instance_id, self._stream, self.batches
        )
        self._batcher.open(partition, time.monotonic())
        self._batch = OpenBatch(settings.raw_bucket, key, self._stream, self.events + 1, now)
        return self._batch

    def _seal(self) -> None:
        batch, self._batch = self._batch, None
        self._batcher.close()
        if batch:
            self._sealer.submit(batch)

    def _partition(self, quarter: int) -> str:
        return identity.partition(quarter * _PARTITION_SECONDS, self._settings.partition_tz)
