"""Limits of the host: what does not fit is told at the start, and never met while serving."""

import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Serve, both_workers
from tests.support import accounting
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import Server, ask

CONFIG = Path(__file__).parents[1] / "support" / "low_limits.py"

#: Of 64 open files 44 are for other things than connections (``server.limits``).
OPEN_FILES, CONNECTIONS = 64, 20


def told(server: Server) -> list[str]:
    return [line["problem"] for line in server.events("host_limit_low")]


@both_workers
@pytest.mark.quick
def test_with_few_open_files_as_many_connections_are_held_as_fit_and_all_are_served(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(
        via=s3,
        config=CONFIG,
        gunicorn="--worker-connections 1000",
        LIMITS=f"NOFILE={OPEN_FILES}",
        BATCH_SIZE="5",
    )
    (problem,) = told(server)
    assert f"limited to {OPEN_FILES} (ulimit -n)" in problem
    assert f"holds {CONNECTIONS} connections" in problem
    client = Client()
    s3.fail("503")
    with ExitStack() as held:
        for _ in range(CONNECTIONS - 1):
            connection = server.connection()
            held.callback(connection.close)
            assert ask(connection, "GET", "/health").status == 200
        client.must_send(server, count=5, requests=40)
        waiting = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        waiting.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        s3.heal()
    with waiting:
        assert waiting.recv(100).startswith(b"HTTP/1.1 200 "), "there is room by now"
    server.until(server.settled, "all is stored")
    accounting.check_equation(server.metrics())
    server.must_stop()
    accounting.check(client.accepted, bucket.stored())
    assert "Too many open files" not in server.log_text()


@both_workers
def test_a_limit_that_is_met_all_the_same_is_told_once_and_no_connection_is_lost(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve()
    client = Client()
    kept = server.connection()
    assert client.send(server, on=kept).status == 202
    (worker,) = server.worker_pids()
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (5, limits[1]))
    late = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(3)]
    eventually(lambda: server.events("connection_not_accepted"), 20, "it is told")
    assert ask(kept, "GET", "/health").status == 200
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    for connection in late:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        connection.close()
    kept.close()
    client.must_send(server, count=5)
    assert server.stop() == 0
    assert len(server.events("connection_not_accepted")) == 1
    assert all(line.startswith("{") for line in server.log_text().splitlines())
    accounting.check_stopped(server.logs())
    accounting.check(client.accepted, bucket.stored())


def test_other_low_limits_are_told_too(serve: Serve) -> None:
    server = serve(config=CONFIG, LIMITS=f"FSIZE={2**20}")
    assert [problem.partition(" is limited")[0] for problem in told(server)] == [
        "the size of a file"
    ]
    assert server.stop() == 0


def test_a_limit_that_leaves_no_connection_ends_the_start_with_a_sentence(serve: Serve) -> None:
    server = serve(config=CONFIG, LIMITS="NOFILE=40")
    assert server.wait() == 3
    said = [line for line in server.log_text().splitlines() if line.startswith("estat: ")]
    assert len(said) == 1
    assert "limited to 40 (ulimit -n)" in said[0]
    assert "Traceback" not in server.log_text()
