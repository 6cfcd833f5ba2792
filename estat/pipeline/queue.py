"""The bounded queue between requests and the collector.

It is bounded by events and by the bytes of finished lines; full is an answer
(503), never a wait. The collector takes all that waits at once.
"""

from collections import deque

import gevent
from gevent.event import Event
from gevent.hub import Waiter, get_hub

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.errors import Refused
from estat.events import stored_line
from estat.events.ids import EventId


class Submission:
    """The events of one request on their way, and what they have in common."""

    __slots__ = (
        "_done",
        "_refused",
        "_waiter",
        "bodies",
        "events",
        "first",
        "on_disk_alone",
        "origin",
        "size_bytes",
    )

    def __init__(self, origin: bytes, bodies: list[bytes]) -> None:
        self.events = len(bodies)
        self.origin = origin
        #: None are left while it waits for the store: many may wait long.
        self.bodies = bodies
        #: Of the finished lines, at most.
        self.size_bytes = sum(map(len, bodies)) + self.events * (
            len(origin) + stored_line.STAMP_BYTES
        )
        #: The id of the first event, once the events are kept; only with RECEIPTS.
        self.first: EventId | None = None
        #: Whether they were kept on disk where DURABILITY asks for the store.
        self.on_disk_alone = False
        self._done = False
        self._waiter: Waiter[None] | None = None
        self._refused: Refused | None = None

    def settle(self, refused: Refused | None = None) -> None:
        """Tell whoever waits that the events are kept, or why they are not."""
        self._done, self._refused = True, refused
        if self._waiter:
            get_hub().loop.run_callback(self._waiter.switch, None)

    def wait(self) -> None:
        """Wait until the events are kept. Raises Refused: nothing of them is left behind.

        Only one greenlet waits, so a bare waiter is enough; an Event costs twice as much.
        """
        if not self._done:
            self._waiter = Waiter()
            self._waiter.get()
        if self._refused:
            raise self._refused


class SubmissionQueue:
    """A queue of submissions, at most ``max_events`` events and ``max_bytes`` bytes."""

    def __init__(self, max_events: int, max_bytes: int, counts: Metrics) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._counts = counts
        self._waiting: deque[Submission] = deque()
        self._events = 0
        self._bytes = 0
        self._wanted = (1, 1)  # by the last request that was refused
        self._wakeup = Event()
        self._half_full = Event()

    def check(self, events: int, size_bytes: int) -> None:
        """Raise Refused unless there is room for so much more now."""
        if events > self._max_events or size_bytes > self._max_bytes:
            raise Refused(
                "too_large",
                f"{events} events of {size_bytes} bytes can never fit the queue "
                f"({self._max_events} events, {self._max_bytes} bytes)",
            )
        if self.full_for(events, size_bytes):
            self._wanted = (events, size_bytes)
            raise Refused("queue_full", "the queue is full; try again")

    def full_for(self, events: int, size_bytes: int) -> bool:
        """Tell whether there is no room for so much more now."""
        return (
            self._events + events > self._max_events or self._bytes + size_bytes > self._max_bytes
        )

    @property
    def full(self) -> bool:
        """Whether the request that was refused last would still be refused."""
        return self.full_for(*self._wanted)

    def put(self, submission: Submission) -> None:
        """Queue a submission that was checked."""
        self._waiting.append(submission)
        self._events += submission.events
        self._bytes += submission.size_bytes
        self._publish()
        self._wakeup.set()
        if self._events * 2 > self._max_events or self._bytes * 2 > self._max_bytes:
            self._half_full.set()

    def take(
        self, timeout_seconds: float | None, gather_seconds: float = 0, *, awaited: bool = True
    ) -> deque[Submission]:
        """Wait for submissions, at most so long, and return all that wait; none on a wakeup.

        Those that arrive within ``gather_seconds`` come along. If somebody waits for them, it
        takes as soon as the event loop has nothing else to do; else not before half the room is
        used.
        """
        self._wakeup.wait(timeout_seconds)
        if gather_seconds and self._waiting:
            if awaited:
                with gevent.Timeout(gather_seconds, False):  # type: ignore[arg-type] # no error
                    gevent.idle()
            else:
                self._half_full.wait(gather_seconds)
        self._wakeup.clear()
        self._half_full.clear()
        taken, self._waiting = self._waiting, deque()
        self._events = self._bytes = 0
        self._publish()
        return taken

    def wake(self) -> None:
        """Make ``take`` return now, to look at what has changed."""
        self._wakeup.set()
        self._half_full.set()

    def _publish(self) -> None:
        self._counts.set(metrics.QUEUE_EVENTS, self._events)
        self._counts.set(metrics.QUEUE_BYTES, self._bytes)
