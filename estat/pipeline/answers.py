"""Requests that are answered once their batch is in the store (DURABILITY=stored).

Their events are in the journal by then, as with DURABILITY=journal, so every answer says that
they will be stored; this alone says whether they are already:

    the batch is stored                                       -> kept in the store
    it goes to the DLQ                                        -> kept on disk
    the breaker opens, a stop has no more time for them, or   -> kept on disk, not waiting further
    their connections are needed

While the breaker is open, requests are answered as soon as they are in the journal. Batches
grow then until the next one may probe the store, so an outage makes few files. The requests
that come once a probe is due wait for it: their batch is the probe.
"""

import logging
import time
from collections.abc import Callable

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.config.settings import Settings
from estat.pipeline.breaker import Breaker
from estat.pipeline.queue import Submission

log = logging.getLogger(__name__)

#: How long no answer must be kept on disk until one from the store says that this is over.
_CALM_SECONDS = 1.0


class Answers:
    """What a worker knows of all requests that wait; ``wake`` is called when some are answered."""

    def __init__(
        self,
        breaker: Breaker,
        counts: Metrics,
        settings: Settings,
        wake: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wake = wake
        #: The batches that requests wait for.
        self.waiting: set[Waiting] = set()
        self._breaker = breaker
        self._counts = counts
        self._age_seconds = settings.stored_interval
        self._most_seconds = settings.flush_interval
        self._uploads = settings.upload_concurrency
        self._clock = clock
        self._on_disk_at: float | None = None  # the last such answer, until that is over
        self._stopping = False

    @property
    def max_age_seconds(self) -> float:
        """The age at which a batch that is opened now is closed."""
        return min(self._most_seconds, max(self._age_seconds, self._breaker.seconds_to_probe))

    @property
    def busy(self) -> bool:
        """Whether a batch that is closed now would only wait for an uploader."""
        return len(self.waiting) > self._uploads

    @property
    def not_waiting(self) -> str:
        """Why a request is not to wait for the store; empty if it is to wait."""
        if self._stopping:
            return "stopping"
        return "breaker_open" if self._breaker.seconds_to_probe else ""

    def hurry(self) -> None:
        """Let batches be closed as soon as there is an uploader for them."""
        self._age_seconds = 0.0

    def stop(self) -> bool:
        """Let no request wait any more; tell whether there were any that did."""
        self._stopping = True
        return self.settle_all("stopping")

    def settle_all(self, on_disk: str) -> bool:
        """Answer all requests that wait (see ``Waiting.settle``); tell whether there were any."""
        found = list(self.waiting)
        for batch in found:
            batch.settle(on_disk)
        return bool(found)

    def tell(self, requests: int, on_disk: str) -> None:
        """Count answers; log when they begin to be kept on disk, and when that is over."""
        self._counts.count(metrics.ANSWERS_KEPT["disk" if on_disk else "store"], requests)
        before, now = self._on_disk_at, self._clock()
        if on_disk:
            self._on_disk_at = now
            if before is None:
                log.warning("answers_kept_on_disk", extra={"reason": on_disk})
        elif before is not None and now >= before + _CALM_SECONDS:
            self._on_disk_at = None
            log.warning("answers_kept_in_store")


class Waiting:
    """The requests of one batch that wait for it."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._requests: list[Submission] = []

    def add(self, requests: list[Submission]) -> None:
        """Take in requests whose events are in the batch's journal."""
        self._requests += requests
        for request in requests:
            request.bodies.clear()
        on_disk = self._answers.not_waiting
        if on_disk:
            self.settle(on_disk)
        else:
            self._answers.waiting.add(self)

    def settle(self, on_disk: str = "") -> None:
        """Answer the requests; ``on_disk`` is why their events are not in the store yet."""
        requests, self._requests = self._requests, []
        if requests:
            self._answers.tell(len(requests), on_disk)
        for request in requests:
            request.on_disk_alone = bool(on_disk)
            request.settle()
        if self in self._answers.waiting:
            self._answers.waiting.remove(self)
            self._answers.wake()
