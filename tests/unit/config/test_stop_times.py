"""How a stop divides its time."""

import pytest

from tests.unit.config.test_loading import load


@pytest.mark.parametrize(("timeout", "delay"), [("25s", "0s"), ("25s", "10s"), ("1s", "0s")])
def test_requests_uploads_and_disk_have_equal_shares_that_end_before_the_stop_does(timeout, delay):
    settings = load(SHUTDOWN_TIMEOUT=timeout, DRAIN_DELAY=delay)
    requests, uploads, disk = settings.stop_times
    assert 0 < requests == pytest.approx(uploads - requests) == pytest.approx(disk - uploads)
    assert disk < settings.shutdown_timeout - settings.drain_delay
