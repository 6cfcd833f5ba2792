"""With METRICS_ADDR the numbers are on a listener of their own, and nowhere else."""

import http.client
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import both_workers
from tests.support import raw_http
from tests.support.eventually import eventually
from tests.support.server import Answer, Server, ask, free_port

pytestmark = pytest.mark.quick

WORKERS = 2


class Private:
    """The second listener of a server."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    def get(self, path: str, *, port: int | None = None, **headers: str) -> Answer:
        """Ask this listener, or the one at ``port``, on a connection of its own."""
        return self.request("GET", path, port=port, headers=headers)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        port: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)
        try:
            return ask(connection, method, path, body, headers or {})
        finally:
            connection.close()


def start(directory: Path, **settings: str) -> Private:
    port = free_port()
    given = {"RAW_BUCKET": f"file:{directory / 'store'}", "METRICS_ADDR": f"127.0.0.1:{port}"}
    return Private(Server(directory, given | settings, workers=WORKERS), port)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    found = start(tmp_path_factory.mktemp("private"))
    with found.server:
        yield found


@both_workers
@pytest.mark.parametrize("path", ["/metrics", "/openapi.json"])
def test_numbers_and_description_are_there_and_only_there(path: str, private: Private) -> None:
    assert private.get(path).status == 200
    assert private.server.get(path).status == 404


@both_workers
@pytest.mark.parametrize("head", [b"HTTP/1.0\r\n\r\n", b"HTTP/1.1\r\nHost: a\r\nTE: x\r\n\r\n"])
def test_it_is_so_for_requests_that_are_not_plain(head: bytes, private: Private) -> None:
    statuses = [
        raw_http.exchange(port, b"GET /metrics " + head).answers[0].status
        for port in (private.port, private.server.port)
    ]
    assert statuses == [200, 404]


def test_the_listener_counts_and_not_what_the_client_says_of_it(private: Private) -> None:
    told = {"Host": f"127.0.0.1:{private.port}", "X-Forwarded-Port": str(private.port)}
    assert private.get("/metrics", port=private.server.port, **told).status == 404
    assert private.get("/metrics", Host=f"127.0.0.1:{private.server.port}").status == 200


@both_workers
def test_events_are_taken_on_the_public_listener_only(private: Private) -> None:
    json_type = {"Content-Type": "application/json"}
    refused = private.request("POST", "/collect", b"{}", headers=json_type)
    assert (refused.status, refused.json["description"]) == (404, "POST /collect")
    assert private.server.post("{}").status == 202


def test_who_sends_elsewhere_is_told_where_events_go(private: Private) -> None:
    refused = private.server.request("POST", "/", b"{}")
    assert (refused.status, refused.json["title"]) == (405, "Method Not Allowed")
    assert refused.json["description"] == "POST /; events go to POST /collect"


def test_both_listeners_tell_whether_the_server_works(private: Private) -> None:
    for path in ("/health", "/ready"):
        assert private.get(path).status == private.server.get(path).status == 200


def test_the_public_listener_says_what_it_is_without_a_version(private: Private) -> None:
    answer = private.server.get("/")
    assert answer.status == 200
    assert answer.json["name"] == "Estat Ingest"
    assert "/collect" in json.dumps(answer.json)
    assert answer.headers["Server"] == "gunicorn"


def test_every_worker_answers_for_all(tmp_path: Path) -> None:
    found = start(tmp_path)
    with found.server as server:
        for _ in range(20):
            assert server.post("{}").status == 202
        asked: set[int] = set()
        connections = []
        try:
            while len(asked) < WORKERS:
                connection = http.client.HTTPConnection("127.0.0.1", found.port, timeout=20)
                connections.append(connection)
                answer = ask(connection, "GET", "/metrics")
                assert b"\nevents_accepted_total 20.0\n" in answer.body
                asked |= {pid for pid in server.worker_pids() if serves(pid, connection)}
        finally:
            for connection in connections:
                connection.close()
        assert server.stop() == 0


def serves(pid: int, connection: http.client.HTTPConnection) -> bool:
    """Tell whether a process holds the other end of a connection."""
    ours, theirs = connection.sock.getsockname()[1], connection.sock.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(address.split(":")[1], 16) for address in fields[1:3]] == [theirs, ours]:
            wanted = f"socket:[{fields[9]}]"
            links = Path(f"/proc/{pid}/fd").iterdir()
            return any(link.is_symlink() and os.readlink(link) == wanted for link in links)
    return False


def test_a_stop_is_watched_on_both_listeners_and_ends_in_order(tmp_path: Path) -> None:
    found = start(tmp_path, DRAIN_DELAY="60s", SHUTDOWN_TIMEOUT="90s")
    with found.server as server:
        server.send_signal(signal.SIGTERM)
        eventually(lambda: server.get("/ready").status == 503, 20, "the drain has begun")
        assert found.get("/ready").status == 503
        assert found.get("/metrics").status == 200
        assert server.post("{}").status == 202
        idle = http.client.HTTPConnection("127.0.0.1", found.port, timeout=20)
        try:
            assert ask(idle, "GET", "/health").status == 200
            server.send_signal(signal.SIGTERM)  # no need to wait for the rest of the delay
            assert server.wait() == 0
        finally:
            idle.close()


def test_a_reload_with_another_address_keeps_the_server_as_it_was(tmp_path: Path) -> None:
    port, another = free_port(), free_port()
    given = tmp_path / ".env"  # the environment of a process does not change
    given.write_text(f"METRICS_ADDR=127.0.0.1:{port}\n")
    server = Server(tmp_path, {"RAW_BUCKET": f"file:{tmp_path / 'store'}"}, workers=WORKERS)
    found = Private(server, port)
    with server:
        given.write_text(f"METRICS_ADDR=127.0.0.1:{another}\n")
        server.send_signal(signal.SIGHUP)
        eventually(
            lambda: len(server.events("worker_started")) == 2 * WORKERS, 20, "it was reloaded"
        )
        (line,) = server.events("reload_refused")
        assert "METRICS_ADDR" in line["problem"]
        assert found.get("/metrics").status == 200
        assert server.get("/metrics").status == 404
        assert server.stop() == 0
