"""When each request of an open loop is due: evenly, whatever becomes of those before it.

A latency counts from this time and not from the sending: a server that stalls
delays what comes behind it too, and a driver that waited for it would not see that.
"""

import math
from typing import NamedTuple


class Schedule(NamedTuple):
    """A rate for a time."""

    start: float  # seconds, of the clock that it is compared with
    rate: float  # requests a second
    seconds: float

    @property
    def requests(self) -> int:
        """How many there are: all that are due before the end."""
        return math.ceil(self.rate * self.seconds)

    def due(self, number: int) -> float:
        """Return when a request is to be sent; they count from 0."""
        # from the start, not from the one before: errors of rounding do not add up
        return self.start + number / self.rate
