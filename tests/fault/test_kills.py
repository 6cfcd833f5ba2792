"""Processes die by kill -9; the accounting stays right and the living take over."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Serve, both_workers, every_s3
from tests.support import accounting
from tests.support.client import Client, Load
from tests.support.dlq_dir import dlq_paths, events_on_disk
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import Server


def leader(server: Server) -> int | None:
    """Return the worker that replays the DLQ: it alone keeps the lock's file open."""
    lock = str(server.own_dir / "leader.lock")
    for pid in server.worker_pids():
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(descriptor) == lock:
                    return pid
            except FileNotFoundError:
                continue
    return None


def once_each(endings: tuple[str, ...]) -> Callable[[str], bool]:
    """Match each key with one of these endings the first time, and not again."""
    seen: set[str] = set()

    def first_time(key: str) -> bool:
        if not key.endswith(endings) or key in seen:
            return False
        seen.add(key)
        return True

    return first_time


def counters(metrics: dict[str, float]) -> dict[str, float]:
    ends = ("_total", "_bucket", "_count", "_sum")
    return {k: v for k, v in metrics.items() if k.partition("{")[0].endswith(ends)}


@both_workers
@pytest.mark.quick
def test_after_a_worker_was_killed_in_memory_mode_the_metrics_miss_exactly_what_was_pending_in_it(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(workers=2, BATCH_SIZE="10", FLUSH_INTERVAL="10m", DURABILITY="memory")
    connections = server.connection_to_each_worker()
    victim, survivor = connections
    dies, lives = Client("dies"), Client("lives")
    for _ in range(2):
        assert dies.send(server, 10, on=connections[victim]).status == 202  # a whole batch
    assert lives.send(server, 10, on=connections[survivor]).status == 202
    stored = [*dies.accepted, *lives.accepted]
    assert dies.send(server, 7, on=connections[victim]).status == 202
    assert lives.send(server, 4, on=connections[survivor]).status == 202
    stored += lives.accepted[10:]
    eventually(lambda: server.metrics()["events_pending"] == 11, 20, "whole batches are stored")
    before = server.metrics()
    accounting.check_equation(before)

    server.kill_worker(victim)
    for connection in connections.values():
        connection.close()
    eventually(lambda: server.events("orphans_settled"), 20, "the events of the dead are settled")
    after = server.metrics()
    went_back = {k: (v, after[k]) for k, v in counters(before).items() if after[k] < v}
    assert not went_back
    assert after["events_accepted_total"] == 41
    assert after["events_pending"] == 4
    assert accounting.missing(after) == 7
    assert [line["events_lost"] for line in server.events("orphans_settled")] == [7]

    more = Client("more")
    more.must_send(server, count=5, requests=6)
    assert server.stop() == 1, "events were lost, and the exit code says so"
    accounting.check([*stored, *more.accepted], bucket.stored())
    (line,) = server.events("server_stopped")
    assert line["lost"] == 7
    assert line["accepted"] == 71


def test_when_the_worker_that_replays_is_killed_another_one_empties_the_dlq(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, workers=2, BATCH_SIZE="10")
    client = Client()
    client.must_spill(server, s3, count=10, requests=20)
    first = eventually(lambda: leader(server), 10, "a worker leads")
    assert first
    server.kill_worker(first)
    eventually(lambda: leader(server) not in (None, first), 20, "another worker leads")
    assert accounting.missing(server.metrics()) == 0
    s3.heal()
    server.must_store(client.accepted, bucket)
    assert server.stop() == 0


@pytest.mark.quick
def test_what_was_in_the_dlq_when_everything_was_killed_is_stored_by_the_next_start(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    first = serve(via=s3, workers=2, BATCH_SIZE="10")
    client = Client()
    client.must_spill(first, s3, count=10, requests=20)
    first.kill()
    accounting.check(client.accepted, bucket.stored(), events_on_disk(first.dlq_dir))

    s3.heal()
    second = serve(via=s3, workers=2)
    second.until(second.settled, "the DLQ empties")
    found = second.metrics()
    assert found["events_adopted_total"] == found["s3_events_stored_total"] == 200
    accounting.check(client.accepted, bucket.stored())
    accounting.check_equation(found)


@every_s3
def test_everything_killed_in_the_middle_of_a_replay_stores_nothing_twice(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    first = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    client.must_spill(first, s3, count=10, requests=20)
    s3.heal()
    held = s3.fail("lands_then_hangs", key=lambda key: key.startswith("raw/"))
    eventually(lambda: held.hits >= 1, 30, "a replay has landed without an answer")
    first.kill()

    s3.heal()
    second = serve(via=s3)
    second.must_store(client.accepted, bucket)
    assert len(bucket.keys("raw/")) == 20


@both_workers
def test_a_host_that_is_lost_with_its_disk_takes_no_event_along_that_was_answered_as_stored(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    for fault in ("lands_then_resets", "hang", "503"):
        server = serve(via=s3, workers=2, DURABILITY="stored", STORED_INTERVAL="20ms")
        with Load(server, clients=8, name=fault) as load:
            server.until(lambda: len(load.stored) > 200, "events are stored")
            s3.fail(fault, times=4)
            before = len(load.accepted)
            server.until(lambda: len(load.accepted) > before + 100, "more come")  # noqa: B023
            server.kill()
        shutil.rmtree(server.dlq_dir)
        s3.heal()
        there = {line["body"]["n"] for line in bucket.stored()}
        assert set(load.stored) <= there


@both_workers
def test_workers_without_their_arbiter_store_what_they_have_and_end(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(workers=2, FLUSH_INTERVAL="10m", BATCH_SIZE="1000")
    workers = server.worker_pids()
    client = Client()
    for connection in server.connection_to_each_worker().values():
        assert client.send(server, 10, on=connection).status == 202
        connection.close()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(timeout=20)

    def gone(pid: int) -> bool:
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"

    server.until(lambda: all(map(gone, workers)), "the workers end")
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


def test_workers_killed_in_memory_mode_and_a_failing_s3_leave_no_event_twice(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(
        via=s3, workers=2, BATCH_SIZE="20", S3_APP_RETRIES="0", S3_TIMEOUT="5s", DURABILITY="memory"
    )
    s3.fail("500", key=once_each(("1.jsonl.gz", "3.jsonl.gz")))
    s3.fail("lands_then_resets", key=once_each(("2.jsonl.gz",)))
    with Load(server) as load:
        for _ in range(3):
            sent = len(load.accepted)
            eventually(lambda least=sent + 200: len(load.accepted) > least, 20, "the load runs")
            server.kill_worker()
    # the directory is the truth: a kill can come between a file and its count
    server.until(
        lambda: not server.metrics()["events_pending"] and not dlq_paths(server.dlq_dir),
        "the DLQ empties",
    )
    lost = accounting.missing(server.metrics())
    assert lost == sum(line["events_lost"] for line in server.events("orphans_settled"))

    names = [line["body"]["n"] for line in bucket.stored()]
    assert len(names) == len(set(names)), "stored twice"
    ids = [line["id"] for line in bucket.stored()]
    assert len(ids) == len(set(ids))
    assert set(names) <= {*load.accepted, *load.unanswered}
    # a batch that landed in the very moment counts as lost: never the other way round
    assert len(set(load.accepted) - set(names)) <= lost
    assert server.stop() == (1 if lost else 0)
