"""The queue between requests and the collector: full is an answer, never a wait."""

import gevent
import pytest

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.errors import Refused
from estat.pipeline.queue import Submission, SubmissionQueue

MAX_EVENTS, MAX_BYTES = 10, 10_000


@pytest.fixture
def row():
    return metrics.page().rows[1]


@pytest.fixture
def queue(row):
    return SubmissionQueue(MAX_EVENTS, MAX_BYTES, Metrics(row))


def submission(events, size_bytes=1):
    return Submission(b',"body":', [b"x" * size_bytes] * events)


def refused(queue, events, size_bytes=1):
    with pytest.raises(Refused) as caught:
        queue.check(events, size_bytes)
    return caught.value.reason


def test_what_does_not_fit_now_is_refused_at_once_and_taken_when_the_collector_has_been(queue):
    queue.check(8, 1)
    queue.put(submission(8))
    with gevent.Timeout(20):
        assert refused(queue, 3) == "queue_full"
        queue.check(2, 1)
        queue.take(0)
        queue.check(3, 1)


def test_bytes_are_bounded_like_events(queue):
    queue.put(submission(1, MAX_BYTES - 1000))
    assert refused(queue, 1, 1000) == "queue_full"


@pytest.mark.parametrize(("events", "size_bytes"), [(MAX_EVENTS + 1, 1), (1, MAX_BYTES + 1)])
def test_what_can_never_fit_is_told_so_also_while_the_queue_is_full(queue, events, size_bytes):
    queue.put(submission(MAX_EVENTS))
    assert refused(queue, events, size_bytes) == "too_large"


def test_it_counts_as_full_until_what_was_refused_last_would_be_taken(queue):
    queue.put(submission(8))
    assert not queue.full
    refused(queue, 3)
    assert queue.full
    queue.take(0)
    assert not queue.full


def test_all_that_waits_is_taken_at_once_in_its_order(queue, row):
    waiting = [submission(events) for events in (1, 3, 2)]
    for one in waiting:
        queue.put(one)
    assert row.cells[metrics.QUEUE_EVENTS] == 6
    assert list(queue.take(0)) == waiting
    assert row.cells[metrics.QUEUE_EVENTS] == row.cells[metrics.QUEUE_BYTES] == 0


def test_whoever_waits_for_a_submission_hears_that_it_was_refused():
    one = submission(1)
    waiting = gevent.spawn(one.wait)
    gevent.idle()
    one.settle(Refused("disk_error", "failing"))
    with pytest.raises(Refused, match="failing"):
        waiting.get(timeout=20)


@pytest.mark.parametrize("end", [lambda queue: queue.put(submission(6)), SubmissionQueue.wake])
def test_what_nobody_waits_for_gathers_until_half_the_room_is_used_or_the_collector_is_woken(
    queue, end
):
    queue.put(submission(1))
    taking = gevent.spawn(queue.take, None, 600, awaited=False)
    gevent.idle()
    assert not taking.ready()
    queue.put(submission(1))
    gevent.idle()
    assert not taking.ready()
    end(queue)
    assert len(taking.get(timeout=20)) >= 2
