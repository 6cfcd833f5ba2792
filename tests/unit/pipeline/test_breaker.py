"""When the breaker opens, probes and closes."""

import pytest

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.errors import NoCredentials, ObjectRefused, StoreDenied, StoreUnavailable
from estat.pipeline.breaker import Breaker


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def row():
    return metrics.page().rows[1]


@pytest.fixture
def breaker(clock, row):
    return Breaker(Metrics(row), clock)


def fail(breaker, times=3, error=StoreUnavailable, key="one"):
    for _ in range(times):
        breaker.failed(error("503"), key)


def test_it_opens_after_several_failures_in_a_row(breaker, row):
    fail(breaker, 2)
    assert breaker.allows()
    fail(breaker, 1)
    assert breaker.open
    assert not breaker.allows()
    assert row.cells[metrics.BREAKER_OPEN] == 1


def test_a_success_in_between_begins_the_count_anew(breaker):
    fail(breaker, 2)
    breaker.worked()
    fail(breaker, 2)
    assert not breaker.open


def test_a_refusal_for_good_opens_it_at_once(breaker):
    fail(breaker, 1, StoreDenied)
    assert breaker.open


def test_one_object_never_opens_it_however_often_it_is_refused(breaker):
    fail(breaker, 100, ObjectRefused)
    assert not breaker.open


def test_several_objects_that_are_refused_in_a_row_open_it(breaker, caplog):
    for key in ("one", "two", "three"):
        assert not breaker.open
        fail(breaker, 2, ObjectRefused, key)
    assert breaker.open
    assert [record.kind for record in caplog.records] == ["ObjectRefused"]


def test_refused_objects_with_a_success_in_between_never_open_it(breaker):
    for key in range(100):
        fail(breaker, 1, ObjectRefused, str(key))
        if key % 2:
            breaker.worked()
    assert not breaker.open


def test_while_open_one_attempt_an_interval_is_allowed_and_intervals_grow_to_30_seconds(
    breaker, clock
):
    fail(breaker)
    waits, last = [], clock.now
    for _ in range(7):
        while not breaker.allows():
            clock.now += 0.25
        assert not breaker.allows(), "only one"
        waits.append(clock.now - last)
        last = clock.now
        fail(breaker, 1)
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_a_success_closes_it_and_tells_who_asked(breaker, row):
    told = []
    breaker.on_close = lambda: told.append(True)
    fail(breaker)
    breaker.worked()
    breaker.worked()
    assert told == [True]
    assert breaker.allows()
    assert row.cells[metrics.BREAKER_OPEN] == 0


def test_the_next_outage_begins_with_short_intervals_again(breaker, clock):
    fail(breaker)
    for _ in range(5):
        clock.now += 30
        assert breaker.allows()
    breaker.worked()
    fail(breaker)
    clock.now += 1
    assert breaker.allows()


def test_an_outage_is_told_again_when_its_kind_changes(breaker, caplog):
    fail(breaker, 10)
    fail(breaker, 10, StoreDenied)
    assert [record.kind for record in caplog.records] == ["StoreUnavailable", "StoreDenied"]


def test_each_outage_is_told(breaker, caplog):
    for _ in range(2):
        fail(breaker)
        breaker.worked()
    told = [record.getMessage() for record in caplog.records]
    assert told == ["store_down", "store_recovered"] * 2


def test_want_of_credentials_opens_it_untold_and_ends_when_they_come(breaker, row, caplog):
    tried_again = []
    breaker.on_close = lambda: tried_again.append(True)
    fail(breaker, 1, NoCredentials)
    assert breaker.lacks_credentials
    assert not breaker.allows()
    breaker.credentials_came()
    assert breaker.allows()
    assert not breaker.lacks_credentials
    assert row.cells[metrics.BREAKER_OPEN] == 0
    assert tried_again == [True]
    assert caplog.records == []


def test_a_store_that_is_down_is_probed_at_once_when_credentials_come(breaker):
    fail(breaker)
    breaker.credentials_came()
    assert breaker.open
    assert breaker.allows()
    assert not breaker.allows(), "only one"
