"""When a batch ends."""

from estat.pipeline.batcher import Batcher

HOUR, NEXT_HOUR = "dt=2025-11-13/hr=07", "dt=2025-11-13/hr=08"


def opened(events: int = 0, size: int = 0) -> Batcher:
    batcher = Batcher(max_events=10, max_bytes=1000, max_age_seconds=60)
    batcher.open(HOUR, now=100)
    if events:
        batcher.add(events, size)
    return batcher


def test_a_batch_takes_a_request_that_fits():
    assert opened(8, 500).takes(2, 500, HOUR)


def test_a_batch_ends_rather_than_exceed_its_count():
    assert not opened(8, 500).takes(3, 10, HOUR)


def test_a_batch_ends_rather_than_exceed_its_bytes():
    assert not opened(8, 500).takes(1, 501, HOUR)


def test_a_batch_ends_with_its_partition():
    assert not opened(1, 10).takes(1, 10, NEXT_HOUR)


def test_a_request_larger_than_a_batch_makes_one_of_its_own():
    batcher = opened()
    assert batcher.takes(25, 9999, HOUR)
    batcher.add(25, 9999)
    assert batcher.full


def test_a_batch_is_due_at_its_age():
    batcher = opened(1, 10)
    assert batcher.seconds_left(now=130) == 30
    assert batcher.seconds_left(now=161) == 0


def test_without_a_batch_nothing_is_due_and_nothing_taken():
    batcher = opened(1, 10)
    batcher.close()
    assert batcher.seconds_left(now=500) is None
    assert not batcher.takes(1, 1, HOUR)
