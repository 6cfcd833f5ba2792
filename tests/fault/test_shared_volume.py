"""Several servers on one volume (DLQ_SHARED): each keeps to its own, the living take over the dead.

The servers here run under one kernel, so a lock tells at once who is dead; that other
hosts wait for the heartbeat to stand still is tests/unit/pipeline/test_takeover.py's.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support import accounting
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import Server

Start = Callable[..., Server]


@pytest.fixture
def start(serve: Serve, tmp_path: Path) -> Start:
    return lambda **settings: serve(DLQ_DIR=str(tmp_path / "shared"), DLQ_SHARED="true", **settings)


def directories(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "shared" / "servers").iterdir())


@pytest.mark.quick
def test_a_living_server_takes_over_the_journals_and_the_dlq_of_a_dead_one(
    start: Start, tmp_path: Path, s3: FaultyS3, bucket: Bucket
) -> None:
    dies = start(via=s3, BATCH_SIZE="10", FLUSH_INTERVAL="10m", workers=2)
    lives = start(workers=2)
    s3.fail("503")
    client = Client()
    client.must_send(dies, count=10, requests=5)
    eventually(dies.all_on_disk, 20, "the batches are in the DLQ")
    client.must_send(dies, count=3)
    assert dies.metrics()["events_pending"] == 3, "in a journal"
    dies.kill()

    eventually(
        lambda: len(bucket.stored()) == 53,
        30,
        "all is stored by the other server",
        last_words=lives.log_text,
    )
    accounting.check(client.accepted, bucket.stored())
    eventually(lambda: len(directories(tmp_path)) == 1, 20, "nothing is left of the dead one")
    found = lives.metrics()
    assert found["events_adopted_total"] == 53
    accounting.check_equation(found)
    assert lives.stop() == 0
    assert directories(tmp_path) == [], "an empty directory goes with its server"


def test_a_living_server_is_left_alone_by_the_others(
    start: Start, tmp_path: Path, s3: FaultyS3, bucket: Bucket
) -> None:
    first = start(via=s3, BATCH_SIZE="10", FLUSH_INTERVAL="10m")
    s3.fail("503")
    client = Client()
    client.must_send(first, count=10, requests=3)
    eventually(first.all_on_disk, 20, "the batches are in the DLQ")
    client.must_send(first, count=3)
    before = first.metrics()
    for _ in range(2):
        other = start()
        assert other.metrics()["dlq_files_current"] == other.metrics()["events_pending"] == 0
        assert other.stop() == 0
        assert accounting.check_stopped(other.logs())["adopted"] == 0
    assert bucket.stored() == []
    assert first.metrics()["events_pending"] == before["events_pending"] == 3
    s3.heal()
    assert first.stop() == 0
    last = start()
    eventually(last.settled, 30, "what the first left is stored")
    eventually(lambda: len(bucket.stored()) == 33, 20, "all is stored")
    accounting.check(client.accepted, bucket.stored())


def test_a_server_that_was_taken_over_ends_and_nothing_of_it_is_lost_or_doubled(
    start: Start, tmp_path: Path, bucket: Bucket
) -> None:
    server = start(FLUSH_INTERVAL="10m")
    client = Client()
    client.must_send(server, count=7)
    (directory,) = directories(tmp_path)
    (directory / "heartbeat").unlink()  # the first thing that a takeover does
    server.wait(30)
    assert server.events("directory_taken_over")
    other = start()
    eventually(other.settled, 30, "nothing is left")
    accounting.check(client.accepted, bucket.stored())
