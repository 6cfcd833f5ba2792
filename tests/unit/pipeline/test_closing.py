"""When an hour is opened and closed in the bucket, and when not."""

import json
import os
import time

import pytest

from estat.accounting import metrics
from estat.disk import hour_files
from estat.disk.journal_file import Header
from estat.errors import StoreDenied, StoreUnavailable
from estat.events import ids
from estat.events.closed_hour import CLOSED, OPEN, STOPPED
from tests.support.eventually import eventually
from tests.support.parts import Parts, load
from tests.unit.batches import STREAM, batch

HOUR = 1763017200.0  # 2025-11-13 07:00 UTC
SERVER = "01a2" * 7


class Clock:
    def __init__(self, monkeypatch):
        self.now = HOUR + 600
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Server(Parts):
    """A server's worker whose loops are run by hand."""

    def __init__(self, root, **settings):
        super().__init__(load(root, DLQ_DIR=f"{root}/dlq/servers/{SERVER}", **settings))
        self.dlq.create()
        metrics.forget_process(self.counts.row)  # as before a fork
        self.root = root
        self.delivery.on_stored = self.hours.stored
        self.bucket = self.settings.raw_bucket

    def open(self, seq=1):
        """Let a batch be opened; return it as it is when it is full."""
        one = batch(bucket=self.bucket, seq=seq)
        self.hours.opened(Header(one.bucket, one.key, one.name, STREAM, one.first, one.opened))
        self.hours.write()
        return one

    def store(self, one):
        self.delivery.attempt(one)
        self.hours.left(one.key)
        self.hours.write()

    def marker(self):
        path = f"{self.root}/store/" + ids.closed_key("raw", "dt=2025-11-13/hr=07", SERVER)
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
        return said["state"], said["revision"]


@pytest.fixture
def server(tmp_path, clock):
    return Server(tmp_path)


def test_an_hour_is_open_with_its_first_batch_and_closed_when_it_is_over(server, clock):
    server.closing.turn()
    assert server.marker() is None
    one = server.open()
    server.closing.turn()
    assert server.marker() == (OPEN, 0)
    server.store(one)
    server.closing.turn()
    assert server.marker() == (OPEN, 0), "more may come"
    clock.now += 3600
    server.closing.turn()
    assert server.marker() == (CLOSED, 1)
    assert hour_files.found_in(server.dlq.root) == []


def test_a_batch_in_memory_keeps_its_hour_and_later_ones_open(server, clock):
    one = server.open()
    clock.now += 2 * 3600
    server.closing.turn()
    assert server.marker() == (OPEN, 0)
    server.page.rows[5].change({metrics.OLDEST_HOUR: 2025111306})
    server.store(one)
    server.closing.turn()
    assert server.marker() == (OPEN, 0), "another worker has one of the hour before"
    server.page.rows[5].change({metrics.OLDEST_HOUR: 2})
    server.closing.turn()
    assert server.marker() == (CLOSED, 1)


def test_a_note_that_is_not_written_yet_keeps_its_hour_open(server, clock):
    one = server.open()
    server.delivery.attempt(one)
    server.hours.left(one.key)
    clock.now += 3600
    server.closing.turn()
    assert server.marker() == (OPEN, 0)
    server.hours.write()
    server.closing.turn()
    assert server.marker() == (CLOSED, 1)


def test_a_file_in_the_dlq_keeps_its_hour_open_until_it_is_stored(server, clock):
    one = server.open()
    server.spill(one)
    server.hours.left(one.key)
    clock.now += 3600
    server.closing.turn()
    assert server.marker() == (OPEN, 0)
    (entry,) = server.dlq.every()
    server.replayer.replay(entry)

    def closed():
        server.closing.turn()
        return server.marker() == (CLOSED, 1)

    eventually(closed, 20, "the DLQ is looked at again")


def test_what_is_stored_after_all_opens_the_hour_again(server, clock):
    server.store(server.open())
    clock.now += 3600
    server.closing.turn()
    late = batch(range(11, 21), bucket=server.bucket, seq=2)
    server.delivery.attempt(late, recovered=True)
    server.closing.turn()
    assert server.marker() == (CLOSED, 2)


def test_the_last_worker_closes_the_hour_that_is_not_over(server, clock):
    server.store(server.open())
    server.counts.set(metrics.BEGINS_BATCHES, 1)
    server.page.rows[5].change({metrics.BEGINS_BATCHES: 1})
    server.closing.finish(time.monotonic() + 0.1, last=True)
    assert server.marker() is None, "another one may still take events"
    server.page.rows[5].change({metrics.BEGINS_BATCHES: -1})
    server.closing.finish(time.monotonic() + 5, last=True)
    assert server.marker() == (CLOSED, 1)


def test_a_stop_says_that_events_are_left_on_the_disk(server, clock):
    one = server.open()
    server.spill(one)
    server.hours.left(one.key)
    server.closing.finish(time.monotonic() + 5, last=True)
    assert server.marker() == (STOPPED, 0)


@pytest.mark.parametrize("error", [StoreUnavailable("503"), StoreDenied("403", "PutObject")])
def test_a_store_that_takes_no_marker_opens_no_breaker_and_is_asked_again(
    server, clock, monkeypatch, error
):
    def refuse(*_):
        raise error

    server.store(server.open())
    with monkeypatch.context() as refusing:
        refusing.setattr(server.stores.get(server.bucket), "put", refuse)
        for _ in range(20):
            server.closing.turn()
    assert not server.delivery.breaker.open
    assert server.counts.row.cells[metrics.PUT_ERRORS] == 0
    clock.now += 3600
    server.closing._refused.clear()
    server.closing.turn()
    assert server.marker() == (CLOSED, 1)


def test_an_hour_of_a_bucket_that_may_not_be_written_to_hides_no_other(server, clock):
    strange = batch(bucket="file:/elsewhere")
    server.hours.note(strange, "stored")
    server.store(server.open())
    clock.now += 3600
    server.closing.turn()
    assert server.marker() == (CLOSED, 1)
    assert len(hour_files.found_in(server.dlq.root)) == 1


def test_while_the_disk_refuses_them_notes_wait_and_their_hour_is_open(server, clock):
    one = server.open()
    place = os.path.join(server.dlq.root, "hours")
    os.rename(place, place + ".away")
    with open(place, "w", encoding="utf-8"):
        pass
    server.store(one)
    assert server.hours.notes
    os.unlink(place)
    os.rename(place + ".away", place)
    server.hours.write()
    assert not server.hours.notes
    clock.now += 3600
    server.closing.turn()
    assert server.marker() == (CLOSED, 1)
