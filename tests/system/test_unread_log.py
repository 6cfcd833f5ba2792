"""Nobody reads the log: requests and the stop go on, and what is not told is counted."""

import json
from pathlib import Path

import pytest

from tests.support import accounting
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.piped_log import PipedServer
from tests.support.s3 import Bucket, Endpoint
from tests.support.server import Server

#: Each makes a line of 3,000 bytes in the access log; together far more than waits in a process.
LONG = {"User-Agent": "x" * 2800}
REQUESTS = 700
ACCESS_LOG = "--access-logfile -"

# tells "at once" from "when some timeout passes"
SOON_SECONDS = 15


def tell_much(server: Server) -> None:
    for _ in range(REQUESTS):
        assert server.request("GET", "/nothing", headers=LONG).status == 404


def told(server: Server) -> int:
    return server.log_text().count(f'{LONG["User-Agent"]}"\n')


@pytest.mark.quick
def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_the_stop(
    tmp_path: Path, endpoint: Endpoint, bucket: Bucket
) -> None:
    settings = endpoint.environ | {"RAW_BUCKET": bucket.name, "SHUTDOWN_TIMEOUT": "60s"}
    client = Client()
    with PipedServer(tmp_path, settings, gunicorn=ACCESS_LOG) as server:
        server.stop_reading()
        tell_much(server)
        client.must_send(server, count=10, requests=3)
        dropped = server.metrics()["log_lines_dropped_total"]
        assert 0 < dropped < REQUESTS
        server.read_on()
        eventually(lambda: told(server) == REQUESTS - dropped, 20, "the others are all told")

        server.stop_reading()
        tell_much(server)
        client.must_send(server, count=10)
        accounting.check_equation(server.metrics())
        assert server.stop(deadline_seconds=SOON_SECONDS) == 0
        last = json.loads((server.dlq_dir / "last-stop").read_text())
        assert (last["event"], last["accepted"], last["lost"]) == ("server_stopped", 40, 0)
    accounting.check(client.accepted, bucket.stored())


@pytest.mark.quick
def test_the_last_line_of_a_stop_is_told_where_the_log_is_read(
    tmp_path: Path, endpoint: Endpoint, bucket: Bucket
) -> None:
    settings = endpoint.environ | {"RAW_BUCKET": bucket.name}
    client = Client()
    with PipedServer(tmp_path, settings, workers=2) as server:
        client.must_send(server, count=10)
        assert server.stop() == 0
        eventually(lambda: server.events("server_stopped"), 20, "it is read")
        accounting.check_stopped(server.logs())
        assert len(server.events("worker_drained")) == 2
        assert not (server.dlq_dir / "last-stop").exists()
    accounting.check(client.accepted, bucket.stored())
