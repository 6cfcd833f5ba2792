"""Turns waiting submissions into batches: the one place where events get their identity.

It takes all that waits and works it off in groups. A group is what goes into
one batch at one time: its lines are stamped with id and time, appended to the
batch's journal, and acknowledged. Numbers are given in this order and never
twice, so a stream has no gaps: where a group that failed may come back after a
crash, with the numbers that it was given, a new stream begins.
"""

import time
from collections import deque
from functools import lru_cache

from estat.config.settings import Settings
from estat.disk.journal import Journals
from estat.disk.journal_file import Header
from estat.errors import DiskError
from estat.events import ids, stored_line
from estat.pipeline.admission import Accounts
from estat.pipeline.answers import Answers, Waiting
from estat.pipeline.open_batch import OpenBatch
from estat.pipeline.queue import Submission, SubmissionQueue
from estat.pipeline.sealer import Sealer
from estat.pipeline.stream import Stream
from estat.threads import Offload

#: A partition can only change on a quarter of an hour: no time zone is offset by less.
_PARTITION_SECONDS = 900

#: Submissions in one group at most: stamping them is the longest time that the event
#: loop is held, and this many take about a millisecond.
_GROUP_SUBMISSIONS = 500

#: How long a group that is going to be synced grows while requests go on arriving. One
#: sync for all of them costs them less time, and half the CPU, than two one after the other.
_GATHER_SECONDS = 0.002

#: How long one grows that nobody waits for, as answers are given before. Without that the
#: collector would run for two or three requests at a time.
_MEMORY_GATHER_SECONDS = 0.005


class Batcher:
    """Decides when a batch ends: a rule without clock or I/O.

    A batch ends when the next request would make it too large, when it is old
    enough, or when the partition changes. The events of one request stay together,
    so a request larger than BATCH_SIZE makes a batch of its own.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._partition: str | None = None
        self._events = 0
        self._bytes = 0
        self._due = 0.0

    def open(self, partition: str, now: float, max_age_seconds: float) -> None:
        """Begin a batch, ``now`` by a clock that never steps (seconds)."""
        self._partition = partition
        self._events = self._bytes = 0
        self._due = now + max_age_seconds

    def close(self) -> None:
        """End the batch."""
        self._partition = None

    def takes(self, events: int, size_bytes: int, partition: str) -> bool:
        """Tell whether the open batch may take a request's events."""
        if partition != self._partition:
            return False
        return not self._events or (
            self._events + events <= self._max_events
            and self._bytes + size_bytes <= self._max_bytes
        )

    def add(self, events: int, size_bytes: int) -> None:
        """Count a request's events into the open batch."""
        self._events += events
        self._bytes += size_bytes

    @property
    def full(self) -> bool:
        """Whether the open batch can take no more at all."""
        return self._events >= self._max_events or self._bytes >= self._max_bytes

    def seconds_left(self, now: float) -> float | None:
        """Return how long the open batch may stay open; None if there is none."""
        return None if self._partition is None else max(0.0, self._due - now)


class Collector:
    """The loop from the queue to the sealer."""

    def __init__(
        self,
        queue: SubmissionQueue,
        journals: Journals,
        sealer: Sealer,
        accounts: Accounts,
        encoder: Offload,
        settings: Settings,
        answers: Answers | None = None,
    ) -> None:
        #: The last one grows.
        self.streams = [Stream(ids.new_stream())]
        self._submissions = queue
        self._journals = journals
        self._sealer = sealer
        _, self._ledger, self._admission, self._hours = accounts
        self._encoder = encoder
        self._settings = settings
        #: Who waits for the store; None where an answer does not wait for it.
        self._answers = answers
        self._whole_seconds = settings.event_format == "raw"
        self._has_receipts = settings.receipts
        self._awaited = settings.durability.journaled
        self._gather_seconds = _GATHER_SECONDS if settings.durability.synced else 0
        if not self._awaited:
            self._gather_seconds = _MEMORY_GATHER_SECONDS
        self._batcher = Batcher(settings.batch_size, settings.batch_bytes)
        self._batch: OpenBatch | None = None
        self._flush = False
        self._ending = False
        self._partition_of = lru_cache(maxsize=4)(self._partition)

    def run(self) -> None:
        """Collect until ``end``, then seal what is left and return."""
        while True:
            ending = self._ending
            patience = 0.0 if ending else self._seconds_left()
            waiting = self._submissions.take(patience, self._gather_seconds, awaited=self._awaited)
            while waiting:
                self.collect(waiting)
            if ending or self._flush or self._seconds_left() == 0:
                self.seal()
            self._flush = False
            if ending:
                return

    def _seconds_left(self) -> float | None:
        """Return how long the open batch may stay open; None until something else changes."""
        seconds = self._batcher.seconds_left(time.monotonic())
        if self._answers and self._answers.busy and seconds == 0:
            return None  # it grows instead of waiting in the upload queue
        return seconds

    def flush(self) -> None:
        """Seal the open batch now, whatever its size and age."""
        self._flush = True
        self._submissions.wake()

    def end(self) -> None:
        """Make ``run`` work off what waits, seal it, and return."""
        self._ending = True
        self._submissions.wake()

    def collect(self, waiting: deque[Submission]) -> None:
        """Work off one group: at least one submission, no more than the open batch takes."""
        now = time.time()
        partition = self._partition_of(int(now) // _PARTITION_SECONDS)
        first = waiting[0]
        if self._batch and not self._batcher.takes(first.events, first.size_bytes, partition):
            self.seal()
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
            events, size = submission.events, submission.size_bytes
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
        batch.compress(self._encoder)
        if self._batcher.full:
            self.seal()

    def _commit(self, batch: OpenBatch, group: list[Submission], now: float) -> None:
        """Keep and acknowledge a group. Raises DiskError; its numbers are then not used."""
        stream = self.streams[-1]
        requests = [(submission.origin, submission.bodies) for submission in group]
        lines = stored_line.stamped(
            stream.name, stream.events + 1, now, requests, whole_seconds=self._whole_seconds
        )
        if batch.journal:
            self._journals.append(batch.journal, lines)
            self._ledger.accept(len(lines))
            if self._has_receipts:
                _name_first_ids(group, stream)
            if batch.waiting:
                batch.waiting.add(group)
            else:
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
            self.streams.append(Stream(ids.new_stream()))
        if batch.events:
            self.seal()
            return
        self._batch = None
        self._batcher.close()
        if batch.journal:
            self._journals.finish(batch.journal)
        self._hours.left(batch.key)

    def _open(self, partition: str, now: float) -> OpenBatch:
        """Begin a batch. Raises DiskError if its journal can't be made."""
        stream, settings = self.streams[-1], self._settings
        stream.batches += 1
        key = ids.object_key(
            settings.raw_prefix, partition, now, settings.instance_id, stream.name, stream.batches
        )
        first = stream.events + 1
        header = Header(settings.raw_bucket, key, ids.stem(key), stream.name, first, now)
        journal = None
        self._hours.opened(header)
        if settings.durability.journaled:
            try:
                journal = self._journals.open(header, stream.batches)
            except DiskError:
                self._hours.left(key)
                raise
        age, waiting = settings.flush_interval, None
        if self._answers:
            age, waiting = self._answers.max_age_seconds, Waiting(self._answers)
        self._batcher.open(partition, time.monotonic(), age)
        self._batch = OpenBatch(header, journal, waiting)
        return self._batch

    def seal(self) -> None:
        """Hand the open batch over, if there is one."""
        batch, self._batch = self._batch, None
        self._batcher.close()
        if batch:
            self._sealer.submit(batch)

    def _partition(self, quarter: int) -> str:
        return ids.partition(quarter * _PARTITION_SECONDS, self._settings.partition_tz)


def _name_first_ids(group: list[Submission], stream: Stream) -> None:
    """Give each submission of the group that the stream takes next the id of its first event."""
    number = stream.events + 1
    for submission in group:
        submission.first = ids.EventId(stream.name, number)
        number += submission.events
