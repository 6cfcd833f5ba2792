"""Decides when a batch ends: a rule without clock or I/O.

A batch ends when the next request would make it too large, when it is old
enough, or when the partition changes. The events of one request stay together,
so a request larger than BATCH_SIZE makes a batch of its own.
"""


class Batcher:
    """The limits of a batch, and how much of them the open one has used."""

    def __init__(self, max_events: int, max_bytes: int, max_age_seconds: float) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._partition: str | None = None
        self._events = 0
        self._bytes = 0
        self._due = 0.0

    def open(self, partition: str, now: float) -> None:
        """Begin a batch, ``now`` by a clock that never steps (seconds)."""
        self._partition = partition
        self._events = self._bytes = 0
        self._due = now + self._max_age_seconds

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
