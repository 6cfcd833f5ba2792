"""Turns waiting submissions into batches: the one place where events get their identity.

It takes all that waits and works it off in groups. A group is what goes into
one batch at one time: its lines are stamped with id and time, appended to the
batch's journal, and acknowledged. Numbers are given in this order and never
twice, so a stream has no gaps: where a group that failed may come back after a
crash, with the numbers that it was given, a new stream begins.
"""

import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache

from estat.accounting.ledger import Ledger
from estat.config.settings import Settings
from estat.disk.journal import Journals
from estat.disk.journal_file import Header
from estat.errors import DiskError
from estat.events import ids, stored_line
from estat.pipeline.admission import Admission
from estat.pipeline.batcher import Batcher
from estat.pipeline.open_batch import OpenBatch
from estat.pipeline.queue import Submission, SubmissionQueue
from estat.pipeline.sealer import Sealer
from estat.threads import Offload

#: A partition can only change on a quarter of an hour: no time zone is offset by less.
_PARTITION_SECONDS = 900

#: Submissions in one group at most: stamping them is the longest time that the event
#: loop is held, and this many take about a millisecond.
_GROUP_SUBMISSIONS = 500

#: How long a group that is going to be synced grows while requests go on arriving. One
#: sync for all of them costs them less time, and half the CPU, than two one after the other.
_GATHER_SECONDS = 0.002


@dataclass(slots=True)
class Stream:
    """The events that were numbered together."""

    name: str
    started: float  # unix seconds
    events: int = 0
    batches: int = 0


class Collector:
    """The loop from the queue to the sealer."""

    def __init__(
        self,
        queue: SubmissionQueue,
        batcher: Batcher,
        journals: Journals,
        sealer: Sealer,
        ledger: Ledger,
        admission: Admission,
        threads: Offload,
        settings: Settings,
    ) -> None:
        #: The last one grows.
        self.streams = [_new_stream()]
        self._journals = journals
        self._ledger = ledger
        self._journaled = settings.durability.journaled
        self._whole_seconds = settings.event_format == "raw"
        self._gather_seconds = _GATHER_SECONDS if settings.durability.synced else 0
        self._submissions = queue
        self._batcher = batcher
        self._sealer = sealer
        self._admission = admission
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
            waiting = self._submissions.take(patience, self._gather_seconds)
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
        self._submissions.wake()

    def end(self) -> None:
        """Make ``run`` work off what waits, seal it, and return."""
        self._ending = True
        self._submissions.wake()

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
        try:
            batch = self._batch or self._open(partition, now)
        except DiskError as exc:
            self._refuse(list(waiting), exc)
            waiting.clear()
            return
        group: list[Submission] = []
        while waiting and len(group) < _GROUP_SUBMISSIONS:
            submission = waiting[0]
            events, size = len(submission.lines), submission.size_bytes
            if not self._batcher.takes(events, size, partition):
                break
            self._batcher.add(events, size)
            group.append(waiting.popleft())
        try:
            self._commit(batch, group, now)
        except DiskError as exc:
            self._refuse(group, exc)
            self._give_up(batch)
            return
        # each request was admitted as if it took a file of its own
        self._admission.expose(0, files=opened - len(group))
        batch.compress(self._threads)
        if self._batcher.full:
            self._seal()

    def _commit(self, batch: OpenBatch, group: list[Submission], now: float) -> None:
        """Keep and acknowledge a group. Raises DiskError; its numbers are then not used."""
        stream = self.streams[-1]
        rests = [rest for submission in group for rest in submission.lines]
        lines = stored_line.stamped(
            stream.name, stream.events + 1, now, rests, whole_seconds=self._whole_seconds
        )
        if batch.journal:
            self._journals.append(batch.journal, lines)
            self._ledger.accept(len(lines))
            for submission in group:
                submission.settle()
        stream.events += len(lines)
        batch.add(lines, sum(submission.size_bytes for submission in group), now)

    def _refuse(self, group: list[Submission], error: DiskError) -> None:
        self._admission.failed(error)
        size = sum(submission.size_bytes for submission in group)
        self._admission.expose(-size, files=-len(group))
        for submission in group:
            submission.settle(self._admission.refusal(error))

    def _give_up(self, batch: OpenBatch) -> None:
        """End a batch whose journal failed; what was acknowledged of it goes on."""
        if batch.journal and not self._journals.trusted(batch.journal):
            self.streams.append(_new_stream())
        if batch.events:
            self._seal()
            return
        self._batch = None
        self._batcher.close()
        if batch.journal:
            self._journals.finish(batch.journal)

    def _open(self, partition: str, now: float) -> OpenBatch:
        """Begin a batch. Raises DiskError if its journal can't be made."""
        stream, settings = self.streams[-1], self._settings
        stream.batches += 1
        key = ids.object_key(
            settings.raw_prefix, partition, now, settings.instance_id, stream.name, stream.batches
        )
        first = stream.events + 1
        journal = None
        if self._journaled:
            header = Header(settings.raw_bucket, key, ids.stem(key), stream.name, first, now)
            journal = self._journals.open(header, stream.batches)
        self._batcher.open(partition, time.monotonic())
        self._batch = OpenBatch(settings.raw_bucket, key, stream.name, first, now, journal)
        return self._batch

    def _seal(self) -> None:
        batch, self._batch = self._batch, None
        self._batcher.close()
        if batch:
            self._sealer.submit(batch)

    def _partition(self, quarter: int) -> str:
        return ids.partition(quarter * _PARTITION_SECONDS, self._settings.partition_tz)


def _new_stream() -> Stream:
    return Stream(ids.new_stream(), time.time())
