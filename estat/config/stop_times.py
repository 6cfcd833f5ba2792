"""The shares of time in a worker's drain: for requests in flight, for uploads, for the disk."""

from typing import NamedTuple

from estat.config.settings import Settings


class StopTimes(NamedTuple):
    """When each share ends, in seconds from the beginning of the drain."""

    requests: float
    uploads: float
    disk: float


def stop_times(settings: Settings) -> StopTimes:
    """Return three equal shares of SHUTDOWN_TIMEOUT, less what passes outside of the drain."""
    seconds = settings.shutdown_timeout - settings.drain_delay
    seconds -= min(1.0, seconds / 5)  # the arbiter's own steps
    return StopTimes(seconds / 3, 2 * seconds / 3, seconds)
