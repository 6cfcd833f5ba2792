"""One client's connection: plain requests are served by a short loop, all others by gunicorn.

gunicorn's way through a request costs three quarters of all that an event
costs. The loop does the same for the requests that nearly all clients send
(``plain_request`` says which). One that is different goes to gunicorn's own
worker, beginning with the bytes that the loop had read, and after its answer the
loop goes on. So every verdict on what is odd is gunicorn's.

What arrives is read by a watcher's callback, and only then is the connection's
greenlet woken: that spares a failing read and the setting up of a wait for each
request.
"""

import contextlib
import io
import socket
import time
from typing import Any, Protocol

import gevent
from gevent.hub import get_hub

from estat.server.plain_request import PlainRequests
from estat.server.responses import Responses
from estat.web.turns import FairSocket, give_turn

_RECEIVE_BYTES = 64 * 1024
#: How long the loop waits for the rest of a body before gunicorn does.
_BODY_SECONDS = 1.0

#: A client that has just connected is about to send its first request.
_FIRST_REQUEST_SECONDS = 1.0

_READ, _CLOSED = 1, b""

NEVER = float("inf")

Environ = dict[str, Any]


class Host(Protocol):
    """What a connection needs of its worker."""

    idle_seconds: float
    head_seconds: float
    plain_requests: PlainRequests
    responses: Responses

    def serve_plain(self, environ: Environ, exchange: "Exchange") -> list[bytes]:
        """Count a request and call the application."""


class Exchange:
    """The answer to one request, as WSGI's start_response collects it."""

    __slots__ = ("headers", "must_close", "status")

    def __init__(self) -> None:
        self.must_close = False
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> None:
        """Take status and headers (PEP 3333; write() is not offered)."""
        del exc_info
        self.status, self.headers = status, headers


class Connection(FairSocket):
    """A connection, now in the fast loop, now in gunicorn's."""

    __slots__ = (
        "_base",
        "_early",
        "_greenlet",
        "_head_begun",
        "_host",
        "_hub",
        "_resumes",
        "_trusted",
        "_unread",
        "_watcher",
        "awaited_until",
        "busy",
        "deadline",
    )

    def __init__(self, host: Host, client: Any, base: Environ, *, trusted: bool) -> None:
        super().__init__(client)
        self.busy = False  # with a request
        now = time.monotonic()
        #: When the client must have sent, or taken, what is due (``time.monotonic``).
        self.deadline = now + host.idle_seconds
        #: Until then an idle connection is not closed at a drain: its first request is under way.
        self.awaited_until = now + _FIRST_REQUEST_SECONDS
        self._trusted = trusted
        self._head_begun = False
        self._host = host
        self._base = base
        self._hub = get_hub()
        self._greenlet = gevent.getcurrent()
        self._early = b""  # what arrived while a request was in hand
        self._unread = b""
        self._resumes = False
        self._watcher: Any = None

    # --- the fast loop

    def serve(self) -> bool:
        """Serve plain requests; True once the next one is for gunicorn, False at the end."""
        self._watcher = self._hub.loop.io(self._client.fileno(), _READ)
        try:
            return self._serve()
        except OSError:
            return False  # the client went without its answer, which gunicorn ignores too
        finally:
            self._watcher.stop()
            self._watcher.close()

    def _readable(self) -> None:
        """Read what has arrived (a callback of the event loop)."""
        try:
            data = self._client._sock.recv(_RECEIVE_BYTES)  # noqa: SLF001 - gevent's own would wait
        except BlockingIOError:
            return
        except OSError:
            data = _CLOSED
        if self.busy:
            # pipelined, or the end: kept until the request in hand is answered
            self._early += data
            self._watcher.stop()
        else:
            self._greenlet.switch(data)

    def _receive(self) -> bytes:
        """Wait for bytes; none are the end."""
        received: bytes = self._hub.switch()
        return received

    def _serve(self) -> bool:
        host, buffer = self._host, self._unread
        self._unread = b""
        read = host.plain_requests.read
        while True:
            if buffer:
                self._give_way()
            if not self._watcher.active:
                buffer = self._read_on(buffer)
            if not buffer:
                self.deadline = time.monotonic() + host.idle_seconds
                buffer = self._receive()
                if not buffer:
                    return False
            end = buffer.find(b"\r\n\r\n")
            environ = read(buffer[:end], self._base, self._trusted) if end > 0 else None
            if environ is None:
                return self._hand_over(buffer)
            start = end + 4
            length = environ.get("CONTENT_LENGTH")
            stop = start + int(length) if length else start
            if len(buffer) < stop:
                buffer = self._complete(buffer, stop)
                if len(buffer) < stop:
                    return self._hand_over(buffer)
            body = buffer[start:stop]
            buffer = buffer[stop:]
            if not self._answer(environ, body):
                return False

    def _give_way(self) -> None:
        """Let others have their turn before a request that was sent ahead."""
        self.busy, self.deadline = True, NEVER
        give_turn()
        self.busy = False

    def _read_on(self, buffer: bytes) -> bytes:
        """Add what arrived meanwhile; with much in hand, let the rest wait in the socket."""
        buffer += self._early
        self._early = b""
        if len(buffer) < _RECEIVE_BYTES:
            self._watcher.start(self._readable)
        return buffer

    def _complete(self, buffer: bytes, stop: int) -> bytes:
        """Wait a little for the rest of a body; return what has come of it."""
        # it is a request in hand: not late as an idle connection is, nor idle at a drain
        self.deadline = self.awaited_until = NEVER
        with gevent.Timeout(_BODY_SECONDS, False):  # type: ignore[arg-type] # False: no error
            while len(buffer) < stop:
                data = self._receive()
                if not data:
                    break
                buffer += data
        return buffer

    def _answer(self, environ: Environ, body: bytes) -> bool:
        """Answer a request; tell whether the connection stays open."""
        environ["wsgi.input"] = io.BytesIO(body)
        environ["estat.body"] = body
        exchange = Exchange()
        self.busy, self.deadline, self.awaited_until = True, NEVER, 0.0
        chunks = self._host.serve_plain(environ, exchange)
        payload = self._host.responses.pack(environ, exchange, chunks)
        self._send(payload)
        self.busy = False
        return not exchange.must_close

    def _send(self, payload: bytes) -> None:
        try:
            sent = self._client._sock.send(payload)  # noqa: SLF001 - gevent's own costs a method more
        except BlockingIOError:
            sent = 0
        if sent < len(payload):
            self.sendall(payload[sent:])

    # --- what gunicorn's loop sees

    def _hand_over(self, buffer: bytes) -> bool:
        self._unread = buffer + self._early
        return True

    def recv(self, size: int) -> bytes:
        """Read as a socket does, beginning with what the fast loop had read.

        Others have their turn before each piece but the first of a head, for which gunicorn waits.
        """
        first = not self.busy and not self._head_begun
        if not first:
            give_turn()
        if self._unread:
            received, self._unread = self._unread[:size], self._unread[size:]
        else:
            received = self._client.recv(size)
        if first:
            self._begin_head()
        return received

    def send(self, data: bytes) -> int:
        """Send as a socket does, to a client that must take it in time."""
        before, self.deadline = self.deadline, time.monotonic() + self._host.head_seconds
        sent: int = self._client.send(data)
        self.deadline = before
        return sent

    def sendall(self, data: bytes) -> None:
        """Send all as a socket does, to a client that must take it in time."""
        before, self.deadline = self.deadline, time.monotonic() + self._host.head_seconds
        self._client.sendall(data)
        self.deadline = before

    def resume(self, unread: bytes) -> None:
        """Let the fast loop go on, with what gunicorn has read and not used."""
        self._unread, self._resumes = unread + self._unread, True

    @property
    def resumes(self) -> bool:
        """Whether the fast loop goes on; asked once."""
        resumes, self._resumes = self._resumes, False
        return resumes

    def close(self) -> None:
        """Close the connection, unless gunicorn only thinks that it has ended."""
        if not self._resumes:
            self._client.close()

    def request_begun(self) -> None:
        """Take note that gunicorn has a request in hand."""
        self.busy, self.deadline, self.awaited_until = True, NEVER, 0.0

    def request_done(self) -> None:
        """Take note that gunicorn waits for the next request."""
        self.busy, self._head_begun = False, False
        self.deadline = time.monotonic() + self._host.idle_seconds

    def _begin_head(self) -> None:
        self._head_begun = True
        self.deadline = time.monotonic() + self._host.head_seconds

    # --- from outside

    def end_reading(self) -> None:
        """Let the reader find the end of the stream, after what has arrived already."""
        with contextlib.suppress(OSError):  # closed by the other side meanwhile
            # gevent's own shutdown would not wake its reader
            self._client._sock.shutdown(socket.SHUT_RD)  # noqa: SLF001

    def abort(self) -> None:
        """End the connection, whatever it waits for."""
        with contextlib.suppress(OSError):
            self._client._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001
