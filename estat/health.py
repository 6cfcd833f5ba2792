"""Notices when the store stops working and when it works again.

One log line for each outage and each recovery, whatever the number of failed
attempts between them.
"""

import logging
import time
from collections.abc import Callable

from estat.errors import ObjectRefused, StoreDenied, StoreError

log = logging.getLogger(__name__)

#: Failed attempts in a row that make an outage; a refusal for good makes one by itself.
_FAILURES = 3


class StoreHealth:
    """What this worker's attempts say about the store as a whole."""

    def __init__(self) -> None:
        self.down = False
        self._failures = 0
        self._since = 0.0
        self._on_recovery: list[Callable[[], None]] = []

    def on_recovery(self, action: Callable[[], None]) -> None:
        """Call ``action`` whenever an outage ends."""
        self._on_recovery.append(action)

    def failed(self, error: StoreError) -> None:
        """Take note of a failed attempt; one refused object says nothing about the store."""
        if isinstance(error, ObjectRefused):
            return
        self._failures += 1
        if self.down or (self._failures < _FAILURES and not isinstance(error, StoreDenied)):
            return
        self.down = True
        self._since = time.monotonic()
        log.error("store_down", extra={"error": str(error), "kind": type(error).__name__})

    def worked(self) -> None:
        """Take note of a successful attempt."""
        self._failures = 0
        if not self.down:
            return
        self.down = False
        seconds = round(time.monotonic() - self._since, 1)
        log.warning("store_recovered", extra={"outage_seconds": seconds})
        for action in self._on_recovery:
            action()
