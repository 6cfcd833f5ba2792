"""The wall clock steps while events are in memory and on disk, and S3 is away.

The servers' clock is libfaketime's (see tests/support/faketime.py); nobody else's steps.
"""

import itertools
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve, need
from tests.support import accounting, faketime
from tests.support.client import Client
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.faketime import Clock
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import Server

#: How wrong the clock is midway through the first life, from its end on, and as S3 comes back.
STEPS = {
    "minutes": ({"minutes": 7}, {"minutes": -7}, {}),
    "hours": ({"hours": 5}, {"hours": -5}, {"hours": 30}),
    "years": ({"days": -400}, {"days": 400}, {"days": -1}),
}


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    need(faketime.library(), "libfaketime")
    return Clock(tmp_path / "clock")


def partition_of(line: dict[str, Any]) -> str:
    return f"{datetime.fromtimestamp(line['ts'], UTC):dt=%Y-%m-%d/hr=%H}"


def check_partitions(bucket: Bucket) -> None:
    """Assert that each object has events of its own partition alone."""
    for stored in bucket.objects():
        partition = stored.key.removeprefix("raw/").rpartition("/")[0]
        assert {partition_of(line) for line in stored.lines} == {partition}, stored.key


def check_all_stored(server: Server, client: Client, bucket: Bucket, adopted: int) -> None:
    """Wait until nothing is on disk any more, stop, and account."""
    server.until(server.settled, "all is stored")
    accounting.check_equation(server.metrics())
    stopped = server.must_stop()
    assert (stopped["adopted"], stopped["in_dlq"]) == (adopted, 0)
    accounting.check(client.accepted, bucket.stored())
    check_partitions(bucket)


@pytest.mark.parametrize("steps", STEPS)
def test_whatever_the_clock_says_files_on_disk_are_counted_and_replayed_once(
    steps: str, clock: Clock, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    midway, later, end = STEPS[steps]
    settings = {"BATCH_SIZE": "10", **clock.environ}
    first = serve(via=s3, workers=2, **settings)
    client = Client()
    client.must_spill(first, s3, count=10, requests=5)
    clock.set(**midway)
    client.must_send(first, count=10, requests=5)
    first.until(first.all_on_disk, "they are on disk")
    accounting.check_equation(first.metrics())
    clock.set(**later)
    assert first.must_stop()["in_dlq"] == 100
    accounting.check(client.accepted, bucket.stored(), events_on_disk(first.dlq_dir))

    second = serve(via=s3, workers=2, **settings)
    eventually(lambda: second.metrics()["dlq_events_current"] == 100, 20, "all are taken over")
    client.must_send(second, count=10, requests=5)
    second.until(second.all_on_disk, "they are on disk")
    clock.set(**end)
    s3.heal()
    check_all_stored(second, client, bucket, adopted=100)


@pytest.mark.parametrize("hours", [5, -72])
def test_what_a_killed_server_left_is_stored_by_one_whose_clock_is_another(
    hours: int, clock: Clock, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    settings = {"BATCH_SIZE": "10", "FLUSH_INTERVAL": "10m", **clock.environ}
    first = serve(via=s3, **settings)
    client = Client()
    client.must_spill(first, s3, count=10, requests=5)
    client.must_send(first, count=3)  # in an open batch
    first.kill()
    s3.heal()

    clock.set(hours=hours)
    second = serve(via=s3, **settings)
    check_all_stored(second, client, bucket, adopted=53)


def test_a_batch_ends_where_the_clock_steps_into_another_partition(
    clock: Clock, serve: Serve, bucket: Bucket
) -> None:
    server = serve(FLUSH_INTERVAL="10m", **clock.environ)
    client = Client()
    client.must_send(server, count=7)
    for hours in (-3, 48, -3):
        clock.set(hours=hours)
        client.must_send(server, count=7)
    server.must_stop()
    accounting.check(client.accepted, bucket.stored())
    check_partitions(bucket)
    assert len(bucket.keys("raw/")) == 4


@pytest.mark.parametrize("endpoint", ["ceph"], indirect=True)
def test_a_clock_that_an_s3_refuses_is_an_outage_until_it_is_set_right(
    clock: Clock, serve: Serve, bucket: Bucket
) -> None:
    clock.set(hours=3)
    server = serve(BATCH_SIZE="10", **clock.environ)
    client = Client()
    client.must_send(server, count=10, requests=5)
    eventually(lambda: server.problems() == ["s3_down"], 20, "the breaker opens")
    server.until(server.all_on_disk, "they are on disk")
    assert "RequestTimeTooSkewed" in server.events("store_down")[0]["error"]
    accounting.check(client.accepted, [], events_on_disk(server.dlq_dir))
    clock.set()
    check_all_stored(server, client, bucket, adopted=0)


def test_a_step_during_a_stop_leaves_the_workers_their_time(
    clock: Clock, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    times = {"SHUTDOWN_TIMEOUT": "6s", "S3_TIMEOUT": "120s"}
    server = serve(via=s3, DURABILITY="memory", BATCH_SIZE="10", **times, **clock.environ)
    s3.fail("hang")
    client = Client()
    client.must_send(server, count=10, requests=3)
    eventually(lambda: len(s3.attempts()) == 3, 20, "the uploads hang")
    server.send_signal(signal.SIGTERM)
    steps = itertools.cycle((1, 0, -1))

    def has_ended_while_its_clock_steps() -> bool:
        clock.set(hours=next(steps))
        return not server.running

    server.until(has_ended_while_its_clock_steps, "it stops")
    assert server.wait() == 0
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    assert accounting.check_stopped(server.logs())["in_dlq"] == 30
