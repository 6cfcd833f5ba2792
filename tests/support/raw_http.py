"""HTTP as bytes: what a client sends is up to the test, and every byte of the answers is kept.

Nothing here waits by the clock. What was sent is followed by a probe, a well-formed
request whose answer is known, or by the end of the client's side; a server ends
its side after that. Where pieces must arrive one by one, a ``Pulse`` tells
when the server has read what was sent.
"""

import re
import select
import socket
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple, Self

#: No server that is alive takes so long.
DEADLINE_SECONDS = 3

#: Asks for nothing that exists, so that its answer is like no other.
PROBE = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"
_PROBE_ANSWER = b"GET /probe"

_HEAD_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[0-9] ")
_DATE = re.compile(rb"(?mi)^date: [^\r]*")
_LENGTH = re.compile(rb"(?mi)^content-length: [^\r]*")


class Answer(NamedTuple):
    """One answer, as it came; ``head`` includes the status line and no date."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def is_probe(self) -> bool:
        return _PROBE_ANSWER in self.body

    @property
    def closes(self) -> bool:
        return self.field(b"Connection").lower() == b"close"

    def field(self, name: bytes) -> bytes:
        """Return the value of a field; empty if it is not there."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name.lower():
                return value.strip()
        return b""

    def without_body(self) -> "Answer":
        """Return what is left of an answer when neither its body nor the length of it counts."""
        return Answer(_LENGTH.sub(b"Content-Length: any", self.head), b"")


class Outcome(NamedTuple):
    """What a connection brought until its end."""

    answers: list[Answer]
    rest: bytes  # what is no answer
    closed: bool  # else it was still open at the deadline


def parse(data: bytes, *, last_has_no_body: bool = False) -> tuple[list[Answer], bytes]:
    """Return the complete answers in ``data`` and what is left of it.

    An answer to HEAD tells a length and has no body. Such a one is known by the
    answer that follows at once; of the last one the caller must know.
    """
    answers = []
    while True:
        head, found, rest = data.partition(_HEAD_END)
        if not found or not _STATUS.match(head):
            return answers, data
        answer = Answer(_DATE.sub(b"Date: any", head), b"")
        length = int(answer.field(b"Content-Length") or 0)
        if _STATUS.match(rest) or (last_has_no_body and not rest):
            length = 0
        if len(rest) < length:
            return answers, data
        answers.append(answer._replace(body=rest[:length]))
        data = rest[length:]


class RawConnection:
    """A connection that sends what it is told and keeps what comes; a context manager."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._received = bytearray()
        self._closed = False
        self._refused = False

    def send(self, data: bytes) -> None:
        """Send all of it, and read meanwhile; give up silently if the server wants no more."""
        left = memoryview(data)
        until = time.monotonic() + DEADLINE_SECONDS
        while left and not self._refused:
            readable, writable, _ = select.select(
                [] if self._closed else [self._socket], [self._socket], [], _left(until)
            )
            if readable:
                self._receive()
            if writable:
                try:
                    left = left[self._socket.send(left) :]
                except BlockingIOError:
                    continue
                except OSError:
                    self._refused = True
            assert time.monotonic() < until, f"{len(left)} bytes are not taken"

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._refused = True

    def reset(self) -> None:
        """Break the connection off, whatever is still to come."""
        at_once = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.close()

    def arrived(self, *, last_has_no_body: bool = False) -> Outcome:
        """Return what is there already."""
        while not self._closed and select.select([self._socket], [], [], 0)[0]:
            self._receive()
        return self._outcome(ended=last_has_no_body)

    def read_all(self) -> Outcome:
        """Read until the server ends its side."""
        self._read_until(lambda: False)
        return self._outcome(ended=True)

    def read_answers(self, count: int, *, last_has_no_body: bool = False) -> Outcome:
        """Read until so many answers are complete."""
        self._read_until(
            lambda: len(parse(bytes(self._received), last_has_no_body=last_has_no_body)[0]) >= count
        )
        return self._outcome(ended=last_has_no_body)

    def forget(self) -> None:
        """Forget what has been received."""
        self._received.clear()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_until(self, done) -> None:
        until = time.monotonic() + DEADLINE_SECONDS
        while not self._closed and not done():
            if not select.select([self._socket], [], [], _left(until))[0]:
                return
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""  # an end as good as any: what came before it was read
        self._received += data
        self._closed = not data

    def _outcome(self, *, ended: bool) -> Outcome:
        answers, rest = parse(bytes(self._received), last_has_no_body=ended)
        return Outcome(answers, rest, self._closed)


class Pulse:
    """Round trips on a connection of its own, to a server of one worker."""

    #: The first shows that what was sent is there; with the last it has been read, since
    #: whatever was ready with the first has had its turn.
    _TIMES = 3

    def __init__(self, port: int) -> None:
        self._connection = RawConnection(port)
        self.beat()  # from now on it may be idle for as long as KEEPALIVE says

    def beat(self) -> None:
        """Return when the server has read all that was sent to it on any connection."""
        for _ in range(self._TIMES):
            self._connection.send(PROBE)
            seen = self._connection.read_answers(1)
            assert len(seen.answers) == 1, seen
            self._connection.forget()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def exchange(port: int, data: bytes, *, half_close: bool = True) -> Outcome:
    """Send bytes on a new connection and read until the server ends it."""
    with RawConnection(port) as connection:
        connection.send(data)
        if half_close:
            connection.half_close()
        return connection.read_all()


def exchange_pieces(
    port: int, pulse: Pulse, requests: Iterable[Iterable[bytes]], *, half_close: bool = True
) -> list[Outcome]:
    """Send each request's pieces on a connection of its own; no two are read at once."""
    waiting = [(RawConnection(port), list(pieces)) for pieces in requests]
    try:
        for turn in range(max(len(pieces) for _, pieces in waiting)):
            for connection, pieces in waiting:
                if turn < len(pieces):
                    connection.send(pieces[turn])
            pulse.beat()
        outcomes = []
        for connection, _ in waiting:
            if half_close:
                connection.half_close()
            outcomes.append(connection.read_all())
        return outcomes
    finally:
        for connection, _ in waiting:
            connection.close()


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
