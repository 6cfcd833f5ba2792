"""FALLBACK_BUCKET takes what a stop could not store."""

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Serve, both_workers
from tests.support import accounting
from tests.support.client import Client
from tests.support.dlq_dir import dlq_paths
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.lines import gunzip_lines
from tests.support.s3 import Bucket

pytestmark = both_workers


def objects(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.quick
def test_a_stop_hands_over_what_s3_does_not_take_under_the_same_keys(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    fallback = tmp_path / "fallback"
    server = serve(via=s3, workers=2, BATCH_SIZE="10", FALLBACK_BUCKET=f"file:{fallback}")
    client = Client()
    client.must_send(server, count=10, requests=5)
    server.until(server.settled, "S3 works at first")
    s3.fail("503")
    client.must_send(server, count=10, requests=30)
    tried = {attempt.key for attempt in s3.attempts()}

    assert server.stop() == 0
    handed = {key: body for key, body in objects(fallback).items() if key.startswith("raw/")}
    lines = [line for body in handed.values() for line in gunzip_lines(body)]
    accounting.check(client.accepted, bucket.stored(), lines)
    assert tried - set(bucket.keys()) <= handed.keys()
    assert dlq_paths(server.dlq_dir) == []
    stopped = accounting.check_stopped(server.logs())
    assert (stopped["handed_over"], stopped["in_dlq"]) == (300, 0)


def test_what_the_fallback_does_not_take_either_stays_on_disk_for_the_next_start(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "fallback").touch()
    first = serve(via=s3, BATCH_SIZE="10", FALLBACK_BUCKET=f"file:{tmp_path / 'fallback'}")
    client = Client()
    s3.fail("503")
    client.must_send(first, count=10, requests=5)
    assert first.stop() == 0
    assert len(first.events("hand_over_ended")) == 1
    assert accounting.check_stopped(first.logs())["in_dlq"] == 50

    s3.heal()
    second = serve(via=s3)
    second.until(second.settled, "the next start stores it")
    accounting.check(client.accepted, bucket.stored())


def test_a_reload_hands_nothing_over_because_the_server_goes_on(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    fallback = tmp_path / "fallback"
    server = serve(via=s3, BATCH_SIZE="10", FALLBACK_BUCKET=f"file:{fallback}")
    client = Client()
    s3.fail("503")
    client.must_send(server, count=10, requests=5)
    server.send_signal(signal.SIGHUP)
    eventually(lambda: server.events("worker_drained"), 30, "the old worker has drained")
    assert not fallback.exists()
    s3.heal()
    server.until(server.settled, "all is stored")
    accounting.check(client.accepted, bucket.stored())


def test_a_worker_that_ends_in_the_drain_delay_hands_nothing_over(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    fallback = tmp_path / "fallback"
    server = serve(
        via=s3,
        BATCH_SIZE="10",
        FALLBACK_BUCKET=f"file:{fallback}",
        DRAIN_DELAY="10m",
        SHUTDOWN_TIMEOUT="20m",
    )
    client = Client()
    s3.fail("503")
    client.must_send(server, count=10, requests=5)
    server.send_signal(signal.SIGTERM)
    eventually(lambda: server.get("/ready").status == 503, 20, "the delay has begun")
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGTERM)
    eventually(lambda: len(server.events("worker_started")) == 2, 40, "another one takes its place")
    assert server.events("worker_drained")
    assert not fallback.exists()
    s3.heal()
    server.until(server.settled, "all is stored")
    accounting.check(client.accepted, bucket.stored())
    assert server.stop() == 0  # the second signal, which ends the delay
