"""The server stops, reloads and recycles its workers; nothing is lost and nobody waits."""

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Serve, both_workers
from tests.support import accounting
from tests.support.client import Client, Load
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import Server, ask

# bounds that tell "at once" from "when some timeout of this test passes": 60 s and more
SOON_SECONDS = 15

MAX_REQUESTS = 50


def head_of(body: bytes) -> bytes:
    return (
        b"POST /collect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )


@both_workers
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.quick), signal.SIGINT, signal.SIGQUIT]
)
def test_a_stop_under_load_stores_what_was_accepted_and_exits_with_0(
    number: signal.Signals, serve: Serve, bucket: Bucket
) -> None:
    server = serve(workers=2, FLUSH_INTERVAL="30s", BATCH_SIZE="200")
    with Load(server) as load:
        eventually(lambda: len(load.accepted) > 500, 20, "the load runs")
        server.send_signal(number)
        eventually(server.refuses_connections, 20, "the server is closing")
        assert server.wait(SOON_SECONDS) == 0
    accounting.check(load.accepted, bucket.stored())  # what was stored was also answered
    line = accounting.check_stopped(server.logs())
    assert line["accepted"] == line["stored"] == len(load.accepted)
    streams = accounting.check_ids(bucket.stored())
    assert set(bucket.keys("raw_streams/")) == {f"raw_streams/{name}.json" for name in streams}


@both_workers
@pytest.mark.quick
def test_a_reload_under_load_replaces_the_workers_and_loses_nothing(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(workers=2, FLUSH_INTERVAL="30s", BATCH_SIZE="200")
    old = set(server.worker_pids())
    with Load(server) as load:
        eventually(lambda: len(load.accepted) > 300, 20, "the load runs")
        server.send_signal(signal.SIGHUP)
        server.until(
            lambda: len(server.worker_pids()) == 2 and not old & set(server.worker_pids()),
            "the old workers are gone",
        )
        before = len(load.accepted)
        eventually(lambda: len(load.accepted) > before + 300, 20, "the new ones work")
        assert server.get("/ready").status == 200
    accounting.check_equation(server.metrics())
    assert server.metrics()["events_accepted_total"] == len(load.accepted)
    assert server.stop() == 0
    accounting.check(load.accepted, bucket.stored())
    line = accounting.check_stopped(server.logs())
    assert line["accepted"] == len(load.accepted)
    streams = accounting.check_ids(bucket.stored())
    assert {f"raw_streams/{stream}.json" for stream in streams} == set(
        bucket.keys("raw_streams/")
    ), "old and new workers ended cleanly"
    assert len(streams) >= 2, "and both have worked"


@both_workers
def test_max_requests_recycles_workers_and_loses_nothing(serve: Serve, bucket: Bucket) -> None:
    server = serve(workers=2, gunicorn="--max-requests 50", FLUSH_INTERVAL="30s")
    with Load(server) as load:
        server.until(lambda: len(server.events("worker_started")) >= 6, "workers were recycled")
    assert server.stop() == 0
    accounting.check(load.accepted, bucket.stored())
    line = accounting.check_stopped(server.logs())
    assert line["accepted"] == line["stored"] == len(load.accepted)


@pytest.mark.quick
def test_a_stop_while_s3_is_down_leaves_files_that_the_next_start_stores(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    first = serve(via=s3, workers=2, FLUSH_INTERVAL="30s", BATCH_SIZE="1000")
    s3.fail("503")
    client = Client()
    client.must_send(first, count=10, requests=10)
    assert first.stop() == 0
    assert bucket.stored() == []
    accounting.check(client.accepted, [], events_on_disk(first.dlq_dir))
    line = accounting.check_stopped(first.logs())
    assert line["accepted"] == line["in_dlq"] == 100

    s3.heal()
    second = serve(via=s3)
    more = Client("b")
    more.must_send(second, count=10)
    second.until(second.settled, "everything is stored")
    found = second.metrics()
    assert found["events_adopted_total"] == found["dlq_events_reuploaded_total"] == 100
    assert found["events_accepted_total"] == 10
    accounting.check_equation(found)
    accounting.check([*client.accepted, *more.accepted], bucket.stored())
    assert len(bucket.keys("raw_streams/")) >= 1, "the records came along"
    assert second.must_stop()["adopted"] == 100


@both_workers
@pytest.mark.quick
def test_a_stop_while_s3_hangs_ends_within_the_shutdown_timeout_with_all_on_disk(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, SHUTDOWN_TIMEOUT="5s", S3_TIMEOUT="120s", BATCH_SIZE="10")
    s3.fail("hang")
    client = Client()
    client.must_send(server, count=10, requests=10)
    assert server.stop(deadline_seconds=SOON_SECONDS) == 0
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    assert accounting.check_stopped(server.logs())["in_dlq"] == 100


@both_workers
@pytest.mark.quick
def test_a_second_signal_skips_to_disk_at_once(serve: Serve, s3: FaultyS3, bucket: Bucket) -> None:
    server = serve(via=s3, SHUTDOWN_TIMEOUT="120s", S3_TIMEOUT="120s", BATCH_SIZE="10")
    s3.fail("hang")
    client = Client()
    client.must_send(server, count=10, requests=3)
    eventually(lambda: len(s3.attempts()) == 3, 20, "the uploads hang")
    server.send_signal(signal.SIGTERM)
    eventually(server.refuses_connections, 20, "the first signal is heeded")
    assert events_on_disk(server.dlq_dir) == []
    assert server.process.poll() is None, "it waits for the uploads"

    assert server.stop(deadline_seconds=SOON_SECONDS) == 0
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    assert accounting.check_stopped(server.logs())["in_dlq"] == 30


@both_workers
def test_during_the_drain_delay_ready_is_red_and_events_are_accepted(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(DRAIN_DELAY="4s")
    server.send_signal(signal.SIGTERM)
    eventually(lambda: server.get("/ready").status == 503, 3, "/ready turns red")
    assert server.get("/ready").json["ready"] is False
    assert server.get("/health").status == 200
    client = Client()
    client.must_send(server, count=10, requests=3)
    assert server.wait(SOON_SECONDS) == 0
    accounting.check(client.accepted, bucket.stored())
    accounting.check_stopped(server.logs())


@both_workers
def test_a_second_signal_ends_the_drain_delay(serve: Serve, bucket: Bucket) -> None:
    server = serve(DRAIN_DELAY="60s", SHUTDOWN_TIMEOUT="120s", FLUSH_INTERVAL="60s")
    client = Client()
    client.must_send(server, count=10)
    server.send_signal(signal.SIGTERM)
    eventually(lambda: server.get("/ready").status == 503, 10, "/ready turns red")
    assert server.stop(deadline_seconds=SOON_SECONDS) == 0
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


@pytest.mark.quick
def test_a_request_in_flight_at_the_stop_is_served_and_its_connection_closed(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(SHUTDOWN_TIMEOUT="60s")
    body = json.dumps({"n": "in-flight"}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head_of(body) + body[:5])
        eventually(
            lambda: server.metrics()["http_requests_total"] == 1, 10, "the request is being read"
        )
        server.send_signal(signal.SIGTERM)
        eventually(server.refuses_connections, 20, "the stop has begun")
        connection.sendall(body[5:])
        answer = b""
        while piece := connection.recv(65536):
            answer += piece  # up to the end: the server closes
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 202 ")
    assert b"connection: close" in head.lower().split(b"\r\n")
    assert json.loads(content) == {"accepted": 1}
    assert server.wait(SOON_SECONDS) == 0
    accounting.check(["in-flight"], bucket.stored())


def test_a_body_that_is_late_at_the_stop_is_waited_for(serve: Serve, bucket: Bucket) -> None:
    # so late that the short loop gives the request to gunicorn's, with the listener closed by then
    server = serve(SHUTDOWN_TIMEOUT="60s")
    body = json.dumps({"n": "late"}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        assert server.get("/health").status == 200  # by then the worker has accepted the other
        connection.sendall(head_of(body) + body[:5])
        server.send_signal(signal.SIGTERM)
        eventually(server.refuses_connections, 20, "the stop has begun")
        answered_or_ended, _, _ = select.select([connection], [], [], 1.5)
        assert not answered_or_ended
        connection.sendall(body[5:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 202 ")
    assert server.wait(SOON_SECONDS) == 0
    accounting.check(["late"], bucket.stored())


def reload(server: Server) -> None:
    server.send_signal(signal.SIGHUP)


def use_up(server: Server) -> None:
    for _ in range(MAX_REQUESTS):
        server.get("/health")


@pytest.mark.parametrize("replace_worker", [reload, use_up])
def test_an_idle_connection_has_one_more_request_when_its_worker_is_replaced(
    replace_worker: Callable[[Server], None], serve: Serve, bucket: Bucket
) -> None:
    # a balancer may be about to use it: the server is as ready as ever
    server = serve(gunicorn=f"--max-requests {MAX_REQUESTS}", FLUSH_INTERVAL="60s")
    client = Client()
    connection = server.connection()
    client.send(server, on=connection)
    replace_worker(server)
    eventually(bucket.stored, 20, "the worker drains: it has ended its open batch")
    answer = client.send(server, on=connection)
    assert answer.status == 202
    assert answer.headers["Connection"] == "close"
    connection.close()
    assert server.stop() == 0
    accounting.check(client.accepted, bucket.stored())


def test_a_worker_that_is_replaced_during_the_drain_delay_takes_leave_too(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(
        gunicorn=f"--max-requests {MAX_REQUESTS}",
        FLUSH_INTERVAL="60s",
        DRAIN_DELAY="10m",
        SHUTDOWN_TIMEOUT="20m",
    )
    client = Client()
    connection = server.connection()
    client.send(server, on=connection)
    server.send_signal(signal.SIGTERM)
    use_up(server)
    eventually(bucket.stored, 20, "the worker drains: it has ended its open batch")
    answer = client.send(server, on=connection)
    assert answer.status == 202
    assert answer.headers["Connection"] == "close"
    connection.close()
    assert server.stop() == 0  # the second signal, which ends the delay
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


def test_a_request_that_is_in_flight_at_the_end_of_a_short_leave_is_answered(
    serve: Serve, bucket: Bucket
) -> None:
    # 2 s for requests in flight, as long as a leave may be at most
    server = serve(SHUTDOWN_TIMEOUT="7s")
    body = json.dumps({"n": "late"}).encode()
    idle = server.connection()
    assert ask(idle, "GET", "/health").status == 200
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head_of(body) + body[:5])
        server.send_signal(signal.SIGHUP)
        assert idle.sock.recv(1) == b"", "the leave is over: what is idle is closed"
        connection.sendall(body[5:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 202 ")
    idle.close()
    assert server.stop() == 0
    accounting.check(["late"], bucket.stored())


def test_an_idle_connection_is_closed_at_the_stop(serve: Serve) -> None:
    server = serve(SHUTDOWN_TIMEOUT="120s", KEEPALIVE="120s")
    idle = server.connection()
    assert ask(idle, "GET", "/health").status == 200
    assert server.stop(deadline_seconds=SOON_SECONDS) == 0
    assert idle.sock.recv(1) == b""
    idle.close()


@pytest.mark.parametrize("sent", [b"", b"POST /collect HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_whole_request_does_not_hold_the_stop(
    sent: bytes, serve: Serve, bucket: Bucket
) -> None:
    server = serve(SHUTDOWN_TIMEOUT="120s", KEEPALIVE="120s")
    client = Client()
    client.must_send(server, count=10)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        assert server.get("/health").status == 200  # by then the worker has accepted the other
        assert server.stop(deadline_seconds=SOON_SECONDS) == 0
        connection.recv(4096)
    accounting.check(client.accepted, bucket.stored())


def stop_a_worker_that_hangs(serve: Serve, durability: str) -> tuple[Client, Server, int]:
    server = serve(
        SHUTDOWN_TIMEOUT="2s", FLUSH_INTERVAL="60s", BATCH_SIZE="1000", DURABILITY=durability
    )
    client = Client()
    client.must_send(server, count=10, requests=3)
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGSTOP)  # as good as a kernel that hangs in a disk's driver
    return client, server, server.stop(deadline_seconds=SOON_SECONDS)


@both_workers
def test_a_worker_that_had_to_be_killed_is_told_as_a_loss(serve: Serve, bucket: Bucket) -> None:
    _, server, code = stop_a_worker_that_hangs(serve, "memory")
    assert code == 1
    (line,) = server.events("server_stopped")
    assert line["lost"] == line["accepted"] == 30
    assert bucket.stored() == []


def test_what_a_killed_worker_had_in_its_journal_is_no_loss_and_stored_by_the_next_start(
    serve: Serve, bucket: Bucket
) -> None:
    client, first, code = stop_a_worker_that_hangs(serve, "journal")
    assert code == 0
    assert accounting.check_stopped(first.logs())["pending"] == 30
    second = serve()
    second.until(second.settled, "the journal is recovered and stored")
    eventually(lambda: len(bucket.stored()) == 30, 20, "all are stored")
    accounting.check(client.accepted, bucket.stored())
    assert second.metrics()["events_adopted_total"] == 30
    assert second.stop() == 0


@both_workers
def test_a_stop_right_after_the_start_is_clean(serve: Serve, bucket: Bucket) -> None:
    server = serve(workers=2)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < SOON_SECONDS
    assert bucket.keys() == []
    assert accounting.check_stopped(server.logs())["accepted"] == 0


@both_workers
def test_a_stop_in_the_middle_of_a_pause_between_attempts_saves_the_batches(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    s3.fail("503")
    server = serve(via=s3, BATCH_SIZE="4", S3_APP_RETRIES="20", SHUTDOWN_TIMEOUT="3s")
    client = Client()
    client.must_send(server, count=4, requests=4)
    eventually(lambda: len(s3.attempts()) >= 4, 20, "the first attempts have failed")
    assert server.stop() == 0
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    accounting.check_stopped(server.logs())


def test_a_reload_with_an_env_file_that_can_not_be_read_keeps_the_server_as_it_was(
    serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    server = serve()
    (tmp_path / ".env").write_bytes(b"# f\xfcr\n")
    server.send_signal(signal.SIGHUP)
    eventually(lambda: server.events("reload_refused"), 20, "the reload is refused")
    client = Client()
    client.must_send(server, count=3)
    server.until(server.settled, "events are stored as before")
    accounting.check(client.accepted, bucket.stored())
    assert server.stop() == 0
