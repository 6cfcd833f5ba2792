"""Several servers on one DLQ_DIR: each keeps to its own, and the living take over the dead.

The servers here run under one kernel, so a lock tells at once who is dead; when another host's
server counts as dead is tests/unit/pipeline/test_takeover.py's. Directories that are lost are
test_lost_directory.py's, earlier layouts test_takeover.py's.
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
    return lambda **settings: serve(DLQ_DIR=str(tmp_path / "shared"), **settings)


def directories(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "shared" / "servers").iterdir())


@pytest.mark.quick
def test_a_living_server_takes_over_the_journals_and_the_dlq_of_a_dead_one(
    start: Start, tmp_path: Path, s3: FaultyS3, bucket: Bucket
) -> None:
    dies = start(via=s3, BATCH_SIZE="10", FLUSH_INTERVAL="10m", workers=2)
    lives = start(workers=2)
    client = Client()
    client.must_spill(dies, s3, count=10, requests=5)
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
    client = Client()
    client.must_spill(first, s3, count=10, requests=3)
    client.must_send(first, count=3)
    before = first.metrics()
    for _ in range(2):
        other = start()
        found = other.metrics()
        assert found["dlq_files_current"] == found["events_pending"] == 0
        assert other.must_stop()["adopted"] == 0
    assert bucket.stored() == []
    assert first.metrics()["events_pending"] == before["events_pending"] == 3
    s3.heal()
    assert first.stop() == 0
    last = start()
    last.until(last.settled, "what the first left is stored")
    eventually(lambda: len(bucket.stored()) == 33, 20, "all is stored")
    accounting.check(client.accepted, bucket.stored())


def test_a_stop_while_the_dlq_dir_is_away_tells_what_is_there_as_set_aside(
    start: Start, tmp_path: Path, s3: FaultyS3, bucket: Bucket
) -> None:
    server = start(via=s3, FLUSH_INTERVAL="10m", BATCH_SIZE="10", SHUTDOWN_TIMEOUT="3s")
    client = Client()
    client.must_spill(server, s3, count=10, requests=2)
    client.must_send(server, count=3)
    (tmp_path / "shared").rename(tmp_path / "away")
    eventually(lambda: server.events("directory_gone"), 10, "it says so")
    assert server.must_stop()["set_aside"] == 23
    s3.heal()
    (tmp_path / "away").rename(tmp_path / "shared")
    last = start()
    last.until(last.settled, "all is stored")
    accounting.check(client.accepted, bucket.stored())
