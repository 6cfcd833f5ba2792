"""Requests made to hold up others: those get their turn, and the connection ends.

Each attack goes on without end, on several connections at once, each of which begins anew when
the server has ended it. An honest client must be answered beside them, one request after the
other, while they send on. One beat that is late by a few seconds would end the worker.
"""

import http.client
import itertools
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import need
from tests.support import accounting
from tests.support.eventually import eventually
from tests.support.haproxy import Haproxy, haproxy_path
from tests.support.lines import gunzip_lines
from tests.support.raw_http import RawConnection
from tests.support.server import STOCK, Server, ask
from tests.support.threads import Clients

KEY = "s3cret-of-the-tests"
HANG_SECONDS = 30

#: A worker that shows no sign of life for so long is replaced.
BEAT_SECONDS = 10

#: Of the honest client; so many are answered while the attack goes on.
REQUESTS = 8

_serial = itertools.count(1)


class Attack(NamedTuple):
    """What a connection sends: a head, in which N names an event, and then a unit for ever."""

    heads: list[bytes]
    unit: bytes
    connections: int = 14
    segment_bytes: int = 64 * 1024
    ends: bool = True  # the server ends each of them


def head(line: str, *fields: bytes) -> bytes:
    return b"".join(part + b"\r\n" for part in (f"{line} HTTP/1.1".encode(), b"Host: x", *fields))


def request(line: str, *fields: bytes) -> bytes:
    return head(line, *fields) + b"\r\n"


KEYED = b"X-Write-Key: " + KEY.encode()
CHUNKED, GIANT = b"Transfer-Encoding: chunked", b"Content-Length: 1000000000000"
BR = b"Content-Encoding: br"
DRIP = b"1\r\n \r\n"
SPACE = b" "
JSON = b"Content-Type: application/json"

#: Nobody wants the bodies of these.
UNWANTED = [
    "GET /collect?n=N",
    "GET /collect.gif?n=N",
    "HEAD /collect",
    "OPTIONS /collect",
    "DELETE /collect",
    "POST /nothing",
    "GET /health",
    "GET /ready",
    "GET /metrics",
    "GET /estat.js",
    "GET /",
]


def unwanted(*fields: bytes) -> list[bytes]:
    return [request(line, KEYED, *fields) for line in UNWANTED]


def extended(extension: bytes) -> bytes:
    return b"1;%b\r\n \r\n" % extension


POSTED = [request("POST /collect", KEYED, CHUNKED)]
NO_KEY = [request("POST /collect", CHUNKED), request("POST /collect", GIANT)]
DENSE = b"[%b]" % b",".join([b"[%b]" % b",".join([b"[]"] * 300)] * 100)  # and no event

ATTACKS = {
    "chunks that nobody wants": Attack(unwanted(CHUNKED), DRIP, len(UNWANTED)),
    "giant lengths": Attack([*unwanted(GIANT), request("POST /collect", KEYED, GIANT)], SPACE, 12),
    "bodies without a key": Attack(NO_KEY, DRIP),
    "chunks": Attack(POSTED, DRIP),
    "chunks with zeros": Attack(POSTED, b"0001\r\n \r\n", 5),
    "chunks with short extensions": Attack(POSTED, extended(b"x"), 5),
    "chunks with long extensions": Attack(POSTED, extended(b"x" * 8000), 5),
    "chunks with many extensions": Attack(POSTED, extended(b'a="";' * 1500 + b"a"), 5),
    "chunks of another coding": Attack([request("POST /collect", KEYED, CHUNKED, BR)], DRIP, 5),
    "trailers": Attack([POSTED[0] + b"0\r\n"], b"X: y\r\n", 5),
    "a body in tiny segments": Attack(
        [request("POST /collect", KEYED, b"Content-Length: 100000")], SPACE, 2, 1
    ),
    "heads": Attack([head("GET /collect?n=N")], b"X-A: b\r\n", 5),
    "heads in tiny segments": Attack([head("GET /collect?n=N") + b"X-A: "], b"b", 2, 1),
    "requests sent ahead": Attack(
        [b""], request("GET /metrics") + request("GET /metrics", b"X-A: 1", b"X-A: 2"), 3
    ),
    "dear bodies sent ahead": Attack(
        [b""],
        request("POST /collect", KEYED, JSON, b"Content-Length: %d" % len(DENSE)) + DENSE,
        3,
        ends=False,
    ),
}


class Attackers(Clients):
    """The connections of an attack."""

    def __init__(self, port: int, attack: Attack) -> None:
        super().__init__(attack.connections)
        self.names: list[str] = []
        self.ended = [0] * attack.connections
        self._sent_bytes = [0] * attack.connections
        self._port = port
        self._attack = attack
        self._stream = attack.unit * (1 + 2**20 // len(attack.unit))

    @property
    def sent_bytes(self) -> int:
        return sum(self._sent_bytes)

    def run(self, number: int) -> None:
        while not self.end.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=1) as client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._send(client, number)
            except TimeoutError:
                continue  # the server is busy with the others
            except OSError:
                self.ended[number] += 1

    def _send(self, client: socket.socket, number: int) -> None:
        """Send until the server wants no more; raises OSError then."""
        name = f"attack-{next(_serial)}"
        self.names.append(name)
        head_ = self._attack.heads[number % len(self._attack.heads)]
        client.sendall(head_.replace(b"=N", b"=" + name.encode()))
        left = memoryview(self._stream)
        ended = select.poll()
        ended.register(client, select.POLLRDHUP)
        while not self.end.is_set():
            try:
                sent = client.send(left[: self._attack.segment_bytes])
            except TimeoutError:
                if ended.poll(0):
                    raise ConnectionResetError from None  # nothing is read, nor will be
                continue
            self._sent_bytes[number] += sent
            left = left[sent:] or memoryview(self._stream)


class Honest:
    """A client beside them, and what is stored of its events."""

    def __init__(self, server: Server, store: Path) -> None:
        self.server = server
        self.accepted: list[str] = []
        self.maybe_stored: list[str] = []
        self._store = store
        self._workers = server.worker_pids()

    def post(self, connection: http.client.HTTPConnection) -> None:
        """Send an event that must be accepted."""
        name = f"honest-{next(_serial)}"
        headers = {"Content-Type": "application/json", "X-Write-Key": KEY}
        answer = ask(connection, "POST", "/collect", json.dumps({"n": name}).encode(), headers)
        assert answer.status == 202, answer
        self.accepted.append(name)

    def check(self) -> None:
        """Check that the worker lives, and that the accounting is right."""
        assert self.server.worker_pids() == self._workers
        assert "Traceback" not in self.server.log_text()
        eventually(self.server.settled, HANG_SECONDS, "everything is stored")
        lines = [
            line
            for path in self._store.rglob("*.jsonl.gz")
            for line in gunzip_lines(path.read_bytes())
        ]
        accounting.check(self.accepted, lines, unanswered=self.maybe_stored)
        accounting.check_equation(self.server.metrics())


WORKERS = {"own": "", "stock": "--worker-class gevent"}


@pytest.fixture(scope="module", params=["stock"] if STOCK else list(WORKERS))
def honest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Honest]:
    """A client of a server that is hasty, under either worker."""
    directory = tmp_path_factory.mktemp(request.param)
    settings = {
        "RAW_BUCKET": f"file:{directory / 'store'}",
        "READ_TIMEOUT": "1s",
        "WRITE_KEYS": f"web:{KEY}",
    }
    gunicorn = f"--timeout {BEAT_SECONDS} {WORKERS[request.param]}"
    with Server(directory, settings, gunicorn=gunicorn) as server:
        yield Honest(server, directory / "store")


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_answered_beside_an_attack_whose_connections_end(
    name: str, honest: Honest
) -> None:
    attack = ATTACKS[name]
    with Attackers(honest.server.port, attack) as attackers:
        enough = attack.connections * min(64 * attack.segment_bytes, 64 * 1024)
        eventually(lambda: attackers.sent_bytes >= enough, HANG_SECONDS, "the attack is under way")
        before = attackers.sent_bytes
        connection = honest.server.connection()
        for _ in range(REQUESTS):
            honest.post(connection)
        connection.close()
        eventually(lambda: attackers.sent_bytes > before, HANG_SECONDS, "the attack goes on")
        if attack.ends:
            eventually(lambda: all(attackers.ended), HANG_SECONDS, "each attacker was cut off")
    honest.maybe_stored += attackers.names
    honest.check()


def test_a_legal_body_in_tiny_chunks_is_accepted(honest: Honest) -> None:
    name = f"honest-{next(_serial)}"
    # few enough that a busy machine reads them within READ_TIMEOUT
    body = b'{"n":"%b"}' % name.encode() + b"\n" * (32 * 1024)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    data = request("POST /collect", KEYED, CHUNKED, b"Content-Type: application/x-ndjson")
    with RawConnection(honest.server.port) as client:
        client.send(data + chunks + b"0\r\n\r\n")
        answer, *_ = eventually(lambda: client.arrived().answers, HANG_SECONDS, "it is answered")
    assert answer.status == 202
    honest.accepted.append(name)
    honest.check()


def test_the_sender_of_a_giant_body_behind_a_balancer_sees_the_answer_and_others_are_served(
    honest: Honest, tmp_path: Path
) -> None:
    need(haproxy_path(), "haproxy")
    with Haproxy(tmp_path, {"estat1": honest.server.port}, 0.2, "60s") as balancer:
        balancer.await_state("estat1", "UP")
        for line, status in (("POST /collect", 413), ("POST /nothing", 404)) * 5:
            with RawConnection(balancer.port) as client:
                client.send(request(line, KEYED, GIANT) + SPACE * 2**16)
                (answer,) = client.read_answers(1).answers
                assert answer.status == status
            connection = balancer.connection()
            honest.post(connection)
            connection.close()
        assert balancer.state("estat1") == "UP"
    honest.check()
