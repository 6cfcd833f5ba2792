"""Clients that send late, or never, or do not read: none of them keeps a place or holds up others.

READ_TIMEOUT bounds a head, a body's pieces and the taking of an answer, KEEPALIVE an idle
connection. A deadline is kept when the client is not cut off in the first half of its time, and is
cut off at all.
"""

import contextlib
import itertools
import os
import re
import resource
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from tests.conftest import Serve, need
from tests.support import accounting
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.raw_http import Answer, Pulse, RawConnection
from tests.support.s3 import Bucket
from tests.support.server import Server

#: The server's times; a head's is longer than an idle connection's where that must not matter.
READ_SECONDS, KEEPALIVE_SECONDS, HEAD_SECONDS = 1, 1, 3
HASTY = {"READ_TIMEOUT": f"{READ_SECONDS}s", "KEEPALIVE": f"{KEEPALIVE_SECONDS}s"}
PATIENT = {"READ_TIMEOUT": f"{HEAD_SECONDS}s", "KEEPALIVE": f"{KEEPALIVE_SECONDS}s"}
#: Longer than any test: whatever stalls stays.
ENDLESS = {"READ_TIMEOUT": "10m", "KEEPALIVE": "10m"}

#: Tells a hang from work on a busy machine.
HANG_SECONDS = 20

#: The connections that one worker holds (docs/architecture.md), and files that a test needs beside.
WORKER_CONNECTIONS, OTHER_FILES = 4096, 400

PLAIN = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
#: A field that comes twice: gunicorn's parser reads the request and gunicorn's loop answers it.
ODD = b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
POST = b"POST /collect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
EVENT = b'{"n":"slow"}'
WHOLE = POST + b"Content-Length: %d\r\n\r\n%b" % (len(EVENT), EVENT)
HALF = WHOLE[:-5]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for nothing long."""
    directory = tmp_path_factory.mktemp("hasty")
    with Server(directory, HASTY | {"RAW_BUCKET": f"file:{directory / 'store'}"}) as server:
        yield server


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that gives a head more time than an idle connection."""
    directory = tmp_path_factory.mktemp("patient")
    with Server(directory, PATIENT | {"RAW_BUCKET": f"file:{directory / 'store'}"}) as server:
        yield server


def let_pass(seconds: float) -> None:
    """Do nothing for a part of a deadline."""
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until, seconds + 1, "time passes")


def body_timeouts(server: Server) -> float:
    return server.metrics()['http_requests_rejected_total{reason="body_timeout"}']


# --- heads


def test_heads_that_trickle_are_cut_off_once_the_read_timeout_has_passed(patient: Server) -> None:
    with contextlib.ExitStack() as opened:
        connections = []
        for before in (b"", PLAIN, ODD):
            connection = opened.enter_context(RawConnection(patient.port))
            connections.append(connection)
            if before:
                connection.send(before)
                assert connection.read_answers(1).answers
        head = itertools.chain(POST + b"X-Slow: ", itertools.repeat(ord("x")))
        began = time.monotonic()
        first_end = None

        def are_cut_off() -> bool:
            nonlocal first_end
            piece = bytes([next(head)])
            for connection in connections:
                connection.send(piece)
            closed = [connection.arrived().closed for connection in connections]
            if any(closed) and first_end is None:
                first_end = time.monotonic()
            return all(closed)

        eventually(are_cut_off, HANG_SECONDS, "the clients are cut off")
        assert first_end
        assert first_end - began > HEAD_SECONDS / 2


def test_a_head_in_two_halves_is_served_within_the_read_timeout_though_beyond_keepalive(
    patient: Server,
) -> None:
    with RawConnection(patient.port) as connection:
        connection.send(PLAIN[:10])
        let_pass(HEAD_SECONDS / 2)
        connection.send(PLAIN[10:])
        assert [answer.status for answer in connection.read_answers(1).answers] == [200]


# --- bodies


def _stalled_bodies() -> dict[str, bytes]:
    length, chunked = b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"
    expect = b"Expect: 100-continue\r\n"
    return {
        "nothing": POST + length % 100 + b"\r\n",
        "a part": POST + length % 100 + b"\r\n" + EVENT,
        "a part of a large one": POST + length % 200_000 + b"\r\n" + b" " * 100_000,
        "nothing after 100": POST + length % 100 + expect + b"\r\n",
        "no chunk": POST + chunked + b"\r\n",
        "a part of a chunk": POST + chunked + b"\r\n64\r\n" + EVENT,
        "no last chunk": POST + chunked + b"\r\n%x\r\n%b\r\n" % (len(EVENT), EVENT),
        "a part of an odd request's": POST + b"X-A: 1\r\nX-A: 2\r\n" + length % 100 + b"\r\n{",
    }


class Ending(NamedTuple):
    """What a connection brought until its end, and when that came."""

    answers: list[Answer]
    seconds: float


class Stalled(NamedTuple):
    """What became of bodies that did not come."""

    endings: dict[str, Ending]
    counted: float
    server: Server


@pytest.fixture(scope="module")
def stalled_bodies(hasty: Server) -> Iterator[Stalled]:
    """All at once, for each takes its time."""
    before = body_timeouts(hasty)
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        waiting = {}
        for name, data in _stalled_bodies().items():
            waiting[name] = opened.enter_context(RawConnection(hasty.port))
            waiting[name].send(data)
        endings: dict[str, Ending] = {}

        def all_ended() -> bool:
            for name in waiting.keys() - endings.keys():
                found = waiting[name].arrived()
                if found.closed:
                    endings[name] = Ending(found.answers, time.monotonic() - began)
            return len(endings) == len(waiting)

        # without an end, the tests tell which one has none
        with contextlib.suppress(pytest.fail.Exception):
            eventually(all_ended, HANG_SECONDS, "all are answered and closed")
        yield Stalled(endings, body_timeouts(hasty) - before, hasty)


@pytest.mark.quick
@pytest.mark.parametrize("name", _stalled_bodies())
def test_a_body_that_does_not_come_is_answered_with_408(name: str, stalled_bodies: Stalled) -> None:
    ending = stalled_bodies.endings[name]
    final = ending.answers[-1]  # 100 may come before
    assert final.status == 408
    assert final.closes
    assert ending.seconds > READ_SECONDS / 2


@pytest.mark.quick
def test_bodies_that_do_not_come_are_counted_under_their_reason(stalled_bodies: Stalled) -> None:
    assert stalled_bodies.counted == len(_stalled_bodies())


@pytest.mark.quick
def test_bodies_that_do_not_come_leave_nothing_in_the_books(stalled_bodies: Stalled) -> None:
    found = stalled_bodies.server.metrics()
    assert found["http_requests_total"] >= len(_stalled_bodies())
    assert found["events_accepted_total"] == found["events_pending"] == 0


def test_a_body_that_trickles_is_answered_with_408_however_often_something_comes(
    hasty: Server,
) -> None:
    with RawConnection(hasty.port) as connection:
        connection.send(POST + b"Content-Length: 10000\r\n\r\n")
        began = time.monotonic()

        def answered() -> list[Answer]:
            connection.send(b" ")
            return connection.arrived().answers

        (answer,) = eventually(answered, HANG_SECONDS, "the client is answered")
        assert answer.status == 408
        assert time.monotonic() - began > READ_SECONDS / 2


def test_a_request_that_begins_late_in_keepalive_has_the_whole_read_timeout_for_its_body(
    hasty: Server,
) -> None:
    with RawConnection(hasty.port) as connection:
        let_pass(KEEPALIVE_SECONDS * 0.6)
        connection.send(HALF)
        # cut off as an idle connection it would have no answer
        found = eventually(
            lambda: (seen := connection.arrived()).closed and seen, HANG_SECONDS, "it has ended"
        )
        assert [answer.status for answer in found.answers] == [408]


# --- answers


class Flood:
    """A client that sends a request over and over, ahead of the answers; a context manager."""

    def __init__(self, port: int, request: bytes, *, receive_bytes: int = 0) -> None:
        self._requests = request * (1 + 2**18 // len(request))
        self._left = memoryview(self._requests)
        self._socket = socket.socket()
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._last = b""
        self.sent_bytes = 0
        self.answers = 0

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def send(self) -> None:
        """Send what goes; raises ConnectionError after the end."""
        with contextlib.suppress(BlockingIOError):
            sent = self._socket.send(self._left)
            self.sent_bytes += sent
            self._left = self._left[sent:] or memoryview(self._requests)

    def read(self) -> None:
        """Read what is there, and count answers."""
        with contextlib.suppress(BlockingIOError):
            data = self._last + self._socket.recv(2**20)
            self.answers += data.count(b"HTTP/1.1 ")
            self._last = data[-8:]  # shorter than what is counted

    def is_cut_off(self) -> bool:
        """Send on; tell whether the server has ended the connection."""
        try:
            self.send()
        except ConnectionError:
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


METRICS = PLAIN.replace(b"/health", b"/metrics")
ODD_METRICS = ODD.replace(b"/health", b"/metrics")
#: Plain ones are answered by the server's own loop, odd ones by gunicorn's.
both_loops = pytest.mark.parametrize("request_", [METRICS, ODD_METRICS], ids=["plain", "odd"])


@both_loops
def test_a_client_that_reads_no_answer_is_cut_off(request_: bytes, hasty: Server) -> None:
    with Flood(hasty.port, request_, receive_bytes=4096) as client:
        began = time.monotonic()
        eventually(client.is_cut_off, HANG_SECONDS, "the client is cut off")
        assert time.monotonic() - began > READ_SECONDS / 2


@both_loops
def test_others_are_served_while_a_client_reads_no_answer(
    request_: bytes, serve: Serve, bucket: Bucket
) -> None:
    server = serve(**ENDLESS)
    with Flood(server.port, request_, receive_bytes=4096) as deaf_client:

        def is_stuck() -> bool:
            before = deaf_client.sent_bytes
            deaf_client.send()
            return before == deaf_client.sent_bytes > 0

        eventually(is_stuck, HANG_SECONDS, "the server takes no more of it")
        client = Client()
        client.must_send(server, requests=20)
    server.until(server.settled, "everything is stored")
    accounting.check(client.accepted, bucket.stored())


@both_loops
def test_clients_that_read_no_answer_give_their_places_back(request_: bytes, serve: Serve) -> None:
    places = 3
    server = serve(**HASTY, gunicorn=f"--worker-connections {places}")
    with contextlib.ExitStack() as clients:
        for _ in range(places):
            clients.enter_context(Flood(server.port, request_, receive_bytes=4096)).send()
        assert server.post(EVENT).status == 202


@both_loops
def test_a_request_does_not_wait_for_all_that_another_client_has_sent_ahead(
    request_: bytes, hasty: Server
) -> None:
    (worker,) = hasty.worker_pids()
    with (
        RawConnection(hasty.port) as one,
        RawConnection(hasty.port) as other,
        Flood(hasty.port, request_) as many,
    ):
        for connection in (one, other):
            connection.send(PLAIN)
            assert connection.read_answers(1).answers
        os.kill(worker, signal.SIGSTOP)  # so that it finds all at once, in whatever order
        try:
            one.send(PLAIN)
            eventually(lambda: many.send() or many.sent_bytes > 2**16, HANG_SECONDS, "it is sent")
            other.send(PLAIN)
        finally:
            os.kill(worker, signal.SIGCONT)

        def answered() -> bool:
            many.read()
            return all(len(connection.arrived().answers) == 2 for connection in (one, other))

        eventually(answered, HANG_SECONDS, "the others are answered")
        assert many.answers < 2**16 / len(request_) / 2


def unread_by_server(server: Server, client_port: int) -> int:
    """Return how many bytes of what a client has sent still are in the kernel, at both ends."""
    ends = {f"{server.port:04X}", f"{client_port:04X}"}
    queued = 0
    for line in Path("/proc/net/tcp").read_text().splitlines():
        match = re.match(r" *\d+: \w+:(\w+) \w+:(\w+) \w\w (\w+):(\w+) ", line)
        if match and {match[1], match[2]} == ends:
            to_send, to_read = (int(number, 16) for number in match.group(3, 4))
            queued += to_read if match[1] == f"{server.port:04X}" else to_send
    return queued


def test_requests_that_are_sent_ahead_wait_in_the_socket_and_not_in_memory(serve: Serve) -> None:
    server = serve(**HASTY)
    with Flood(server.port, WHOLE) as client:

        def many_answered() -> bool:
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                client.send()
                client.read()
            return client.answers >= 3000

        eventually(many_answered, HANG_SECONDS, "3,000 are answered")
        kernel = unread_by_server(server, client.port)
        in_memory = client.sent_bytes - client.answers * len(WHOLE) - kernel
        assert kernel > 2**20, "the client is far ahead"
        assert in_memory < 2**20


# --- idle connections


@pytest.mark.quick
@pytest.mark.parametrize("before", [PLAIN, ODD], ids=["plain", "odd"])
def test_an_idle_connection_is_closed_after_keepalive(before: bytes, hasty: Server) -> None:
    with RawConnection(hasty.port) as connection:
        connection.send(before)
        assert connection.read_answers(1).answers
        began = time.monotonic()
        eventually(lambda: connection.arrived().closed, HANG_SECONDS, "it is closed")
        assert time.monotonic() - began > KEEPALIVE_SECONDS / 2


def test_a_connection_that_has_sent_nothing_has_the_read_timeout(serve: Serve) -> None:
    server = serve(READ_TIMEOUT="1s", KEEPALIVE="10m")
    with RawConnection(server.port) as used, RawConnection(server.port) as never_used:
        used.send(PLAIN)
        assert used.read_answers(1).answers
        eventually(lambda: never_used.arrived().closed, HANG_SECONDS, "it is closed")
        assert not used.arrived().closed


def test_a_connection_in_use_stays_open_beyond_keepalive(hasty: Server) -> None:
    with RawConnection(hasty.port) as connection:
        until = time.monotonic() + 2.5 * KEEPALIVE_SECONDS
        sent = 0

        def used_long_enough() -> bool:
            nonlocal sent
            connection.send(ODD if sent % 2 else PLAIN)
            sent += 1
            assert len(connection.read_answers(sent).answers) == sent
            return time.monotonic() > until

        eventually(used_long_enough, HANG_SECONDS, "it is used beyond KEEPALIVE")


# --- crowds


class Crowd:
    """Clients that stall: a third each without a byte, in a head, and in a body."""

    _SENT = (b"", HALF[:40], HALF)

    def __init__(self, port: int, count: int) -> None:
        self._sockets: list[socket.socket] = []
        self._ended = select.poll()
        for _, data in zip(range(count), itertools.cycle(self._SENT), strict=False):
            client = socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS)
            self._sockets.append(client)
            client.sendall(data)
            self._ended.register(client, select.POLLIN)

    def ended(self) -> int:
        """Return how many have an answer or their end: nothing else comes to such clients."""
        return len(self._ended.poll(0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._sockets:
            client.close()


@pytest.fixture
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = WORKER_CONNECTIONS + OTHER_FILES
    need(hard == resource.RLIM_INFINITY or hard >= enough, f"a limit of {enough} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


#: Places that the honest client takes: its own connection, and those that look at /metrics.
HONEST = 6


@pytest.mark.usefixtures("_many_files")
@pytest.mark.parametrize("count", [1000, WORKER_CONNECTIONS - HONEST])
def test_events_are_accepted_and_stored_once_beside_a_crowd_that_stalls(
    count: int, serve: Serve, bucket: Bucket
) -> None:
    server = serve(**ENDLESS)
    client = Client()
    with Crowd(server.port, count) as crowd:
        for _ in range(10):
            client.must_send(server, count=2, requests=10)
        assert crowd.ended() == 0, "it is there all the while"
        server.until(server.settled, "everything is stored")
        accounting.check(client.accepted, bucket.stored())
    line = server.must_stop()
    assert line["accepted"] == line["stored"] == len(client.accepted)


def test_when_connections_run_out_those_that_wait_longest_end_and_others_are_served(
    serve: Serve, bucket: Bucket
) -> None:
    places, more = 30, 15
    server = serve(**ENDLESS, gunicorn=f"--worker-connections {places}")
    client = Client()
    with Crowd(server.port, places + more) as crowd:
        client.must_send(server)
        assert more <= crowd.ended() < places + more
        assert server.get("/health").status == 200
    server.until(server.settled, "everything is stored")
    accounting.check(client.accepted, bucket.stored())


@pytest.mark.parametrize("before", [b"", PLAIN, ODD], ids=["never used", "plain", "odd"])
def test_idle_connections_end_in_the_order_in_which_they_began_to_wait(
    before: bytes, serve: Serve
) -> None:
    places = 10
    server = serve(**ENDLESS, gunicorn=f"--worker-connections {places}")
    with contextlib.ExitStack() as opened:
        # who has just connected is ended no sooner than who is in a request: it connects last
        *idle, in_body = (opened.enter_context(RawConnection(server.port)) for _ in range(places))
        in_body.send(HALF)
        for connection in idle:
            connection.send(before)
            if before:
                assert connection.read_answers(1).answers
        assert server.get("/health").status == 200
        eventually(lambda: idle[0].arrived().closed, HANG_SECONDS, "the first one has ended")
        assert not idle[-1].arrived().closed
        in_body.send(WHOLE[len(HALF) :])
        assert [answer.status for answer in in_body.read_answers(1).answers] == [202]


# --- stops


def test_a_crowd_that_stalls_does_not_hold_a_stop_beyond_the_shutdown_timeout(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(**ENDLESS, SHUTDOWN_TIMEOUT="6s", FLUSH_INTERVAL="60s", BATCH_SIZE="1000")
    client = Client()
    with (
        Crowd(server.port, 300),
        Flood(server.port, METRICS, receive_bytes=4096) as plain,
        Flood(server.port, ODD_METRICS, receive_bytes=4096) as odd,
    ):
        plain.send()
        odd.send()
        client.must_send(server, count=10, requests=5)
        assert server.stop(deadline_seconds=HANG_SECONDS) == 0
    accounting.check(client.accepted, bucket.stored())
    line = accounting.check_stopped(server.logs())
    assert line["accepted"] == line["stored"] == 50
    assert [line["left"] for line in server.events("worker_drained")] == [0], "it was not killed"


@pytest.mark.quick
def test_a_stop_closes_at_once_what_is_idle_and_waits_for_the_request_in_flight(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(**ENDLESS, SHUTDOWN_TIMEOUT="120s")
    with contextlib.ExitStack() as opened:
        idle = []
        for before, head in itertools.product((b"", PLAIN, ODD), (b"", HALF[:40])):
            connection = opened.enter_context(RawConnection(server.port))
            idle.append(connection)
            if before:
                connection.send(before)
                connection.read_answers(1)
            connection.send(head)
        in_flight = opened.enter_context(RawConnection(server.port))
        in_flight.send(HALF)
        eventually(
            lambda: server.metrics()["http_requests_total"] == 1, HANG_SECONDS, "it is in flight"
        )
        server.send_signal(signal.SIGTERM)
        server.until(
            lambda: all(connection.arrived().closed for connection in idle),
            "the idle ones are closed",
        )
        assert not in_flight.arrived().closed
        in_flight.send(WHOLE[len(HALF) :])
        assert [answer.status for answer in in_flight.read_all().answers] == [202]
    assert server.wait() == 0
    accounting.check(["slow"], bucket.stored())


@pytest.mark.parametrize("was_read", [True, False], ids=["read", "arrived"])
def test_a_request_whose_body_has_begun_to_come_is_in_flight_at_a_stop(
    was_read: bool, serve: Serve, bucket: Bucket
) -> None:
    server = serve(**ENDLESS, SHUTDOWN_TIMEOUT="120s")
    (worker,) = server.worker_pids()
    with RawConnection(server.port) as connection, RawConnection(server.port) as idle:
        for used in (connection, idle):
            used.send(PLAIN)
            assert used.read_answers(1).answers
        if was_read:
            connection.send(HALF)
            with Pulse(server.port) as pulse:
                pulse.beat()
            os.kill(worker, signal.SIGTERM)
        else:
            os.kill(worker, signal.SIGSTOP)  # so that it finds the request and the signal at once
            connection.send(HALF)
            os.kill(worker, signal.SIGTERM)
            os.kill(worker, signal.SIGCONT)
        eventually(lambda: idle.arrived().closed, HANG_SECONDS, "the stop has begun")
        connection.send(WHOLE[len(HALF) :])
        answers = connection.read_all().answers
    assert [answer.status for answer in answers] == [200, 202]
    assert server.stop() == 0
    accounting.check(["slow"], bucket.stored())
