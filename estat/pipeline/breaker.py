"""A circuit breaker: during an outage batches go to disk without waiting for the store.

    closed --several failures in a row, or the store denies (403)--> open
    open   --an interval has passed--> one batch may try (the probe)
    probe  --stored--> closed        --failed--> open, the interval doubled, up to 30 s

So an outage costs disk, not acceptance: uploaders do not spend their time on
attempts that can't succeed, and the upload queue stays empty. One log line
tells the beginning of an outage and one its end. A rule with a clock, no I/O.

A store that refuses one object (400) may find fault with that object alone. One that
refuses several different objects in a row, and takes none in between, is down.
"""

import logging
import time
from collections.abc import Callable

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.errors import NoCredentials, ObjectRefused, StoreDenied, StoreError

log = logging.getLogger(__name__)

#: Failed attempts in a row that open it; of an object that is refused, the first one alone counts.
#: A store that denies (403, no such bucket) opens it at once.
_FAILURES = 3

_FIRST_SECONDS, _CAP_SECONDS = 1.0, 30.0


class Breaker:
    """What this worker's attempts say about the store as a whole."""

    def __init__(self, counts: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.open = False
        #: Called whenever an outage ends, or may have ended.
        self.on_close: Callable[[], object] = lambda: None
        #: Called when an outage begins.
        self.on_open: Callable[[], object] = lambda: None
        self._counts = counts
        self._clock = clock
        self._failures = 0
        self._refused: set[str] = set()  # the keys of refused objects that are counted
        self._kind: type[StoreError] | None = None  # of the failure that was told
        self._worked_at = float("-inf")
        self._since = 0.0
        self._probe_at = 0.0
        self._interval = _FIRST_SECONDS

    def allows(self) -> bool:
        """Tell whether to attempt an upload now; while open, one caller an interval may."""
        if self.seconds_to_probe:
            return False
        if self.open:
            self._interval = min(2 * self._interval, _CAP_SECONDS)
            self._probe_at = self._clock() + self._interval
        return True

    @property
    def seconds_to_probe(self) -> float:
        """How long no upload may be attempted; 0 while it is closed."""
        return max(0.0, self._probe_at - self._clock()) if self.open else 0.0

    def failed(self, error: StoreError, key: str) -> None:
        """Take note of a failed attempt to store the object ``key``."""
        if self.open:
            self._tell(error)
            return
        if isinstance(error, ObjectRefused):
            if key in self._refused:
                return
            self._refused.add(key)
        self._failures += 1
        if self._failures < _FAILURES and not isinstance(error, StoreDenied):
            return
        self._set(open_=True)
        self._since = self._clock()
        self._interval = _FIRST_SECONDS
        self._probe_at = self._since + self._interval
        self._kind = None
        self._tell(error)
        self.on_open()

    def _tell(self, error: StoreError) -> None:
        """Log why the store is down, and again when the kind of error has changed.

        ``Credentials`` logs missing credentials itself.
        """
        if type(error) is self._kind:
            return
        self._kind = type(error)
        if self._kind is not NoCredentials:
            log.error("store_down", extra={"error": str(error), "kind": self._kind.__name__})

    def worked(self) -> None:
        """Take note of a successful attempt."""
        self._failures = 0
        self._refused.clear()
        self._worked_at = self._clock()
        if not self.open:
            return
        self._set(open_=False)
        log.warning(
            "store_recovered", extra={"outage_seconds": round(self._clock() - self._since, 1)}
        )
        self.on_close()

    @property
    def lacks_credentials(self) -> bool:
        """Whether it is open because nothing can be signed: the store was not asked."""
        return self.open and self._kind is NoCredentials

    def credentials_came(self) -> None:
        """Let batches try again, for the reason of their failures may be gone."""
        if self.lacks_credentials:
            self._failures = 0
            self._set(open_=False)
        self._probe_at = self._clock()
        self.on_close()

    def worked_since(self, moment: float) -> bool:
        """Tell whether the store works and has shown it since ``moment`` (``time.monotonic``)."""
        return not self.open and self._worked_at >= moment

    def _set(self, *, open_: bool) -> None:
        self.open = open_
        self._counts.set(metrics.BREAKER_OPEN, int(open_))
