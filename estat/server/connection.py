"""One client's connection: a short loop serves plain requests, gunicorn serves all others.

gunicorn's way through a request costs three quarters of all that an event costs. The
fast loop does the same for the requests that nearly all clients send; ``plain_request``
says which. Any other request goes to gunicorn's own worker, with the bytes that the loop
has read of it, and after its answer the loop goes on. So gunicorn decides on everything
that is odd.

A callback of the event loop reads what arrives, and then wakes the connection's greenlet.
That spares each request a read that fails and a wait that is set up anew.
"""

import contextlib
import math
import socket
import time
from typing import Any, Protocol
from wsgiref.types import WSGIEnvironment

import gevent
from gevent.hub import get_hub
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine

from estat.server.plain_request import PlainRequests
from estat.web.environ import BODY
from estat.web.turns import FairSocket, give_turn

_RECEIVE_BYTES = 64 * 1024
#: How long the fast loop waits for the rest of a body. Then gunicorn waits for it.
_BODY_SECONDS = 1.0

#: A client that has just connected is about to send its first request.
_FIRST_REQUEST_SECONDS = 1.0

_READ = 1  # what the event loop watches for

#: What gunicorn is given of a head, as behind an Application Load Balancer: of its first line, of
#: each field, and in all. gunicorn itself has the limit of a field.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
MAX_LINE_BYTES, MAX_HEAD_BYTES = 16 * 1024, 64 * 1024

_NEVER = math.inf


class Host(Protocol):
    """What a connection needs of its worker."""

    idle_seconds: float
    head_seconds: float
    plain_requests: PlainRequests

    def serve_plain(self, environ: WSGIEnvironment) -> tuple[bytes, bool]:
        """Return the answer to a request, and whether it ends the connection."""


class _Head:
    """How much has come of a head that gunicorn reads."""

    def __init__(self) -> None:
        self._size, self._tail = 0, b""
        self._in_first_line, self._ended = True, False

    def take(self, data: bytes) -> None:
        """Count what comes next. Raises what gunicorn answers with 414 or 431."""
        if self._ended:
            return
        text = self._tail + data
        before = self._size - len(self._tail)
        end, line_end = text.find(b"\r\n\r\n"), text.find(b"\r\n")
        self._size += len(data)
        self._tail = text[-3:]
        if self._in_first_line:
            length = before + (line_end if line_end >= 0 else len(text))
            if length > MAX_LINE_BYTES:
                raise LimitRequestLine(length, MAX_LINE_BYTES)
            self._in_first_line = line_end < 0
        self._ended = end >= 0
        if before + (end if self._ended else len(text)) > MAX_HEAD_BYTES:
            raise LimitRequestHeaders(f"a head of more than {MAX_HEAD_BYTES} bytes")


class Connection(FairSocket):
    """A connection, served in turn by the fast loop and by gunicorn's."""

    __slots__ = (
        "_base",
        "_greenlet",
        "_head",
        "_head_begun",
        "_host",
        "_hub",
        "_raw",
        "_unread",
        "_watcher",
        "awaited_until",
        "busy",
        "deadline",
        "resumes",
        "waits_since",
    )

    def __init__(self, host: Host, client: Any, base: WSGIEnvironment) -> None:
        super().__init__(client, host.head_seconds)
        #: Python's own socket within gevent's: it never waits, and raises BlockingIOError.
        self._raw: socket.socket = client._sock  # noqa: SLF001 - gevent has no public way to it
        self.busy = False  # with a request
        now = time.monotonic()
        #: When the client must have sent what is due (``time.monotonic``).
        self.deadline = now + host.head_seconds
        #: Since when the server waits for the client, to send or to take something.
        self.waits_since = now
        #: Until then a drain leaves the connection open: its first request may be on its way.
        self.awaited_until = now + _FIRST_REQUEST_SECONDS
        self._head = _Head()
        self._head_begun = False
        self._host = host
        self._base = base
        self._hub = get_hub()
        self._greenlet = gevent.getcurrent()
        self._unread = b""
        self.resumes = False  # to the fast loop, after a request of gunicorn's
        self._watcher: Any = None

    # --- the fast loop

    def serve(self) -> bool:
        """Serve plain requests; return True if the next one is for gunicorn, False at the end."""
        self._watcher = self._hub.loop.io(self._client.fileno(), _READ)
        try:
            return self._serve()
        except OSError:
            return False  # the client left before its answer; gunicorn ignores that too
        finally:
            self._watcher.stop()
            self._watcher.close()

    def _readable(self) -> None:
        """Read what has arrived (a callback of the event loop)."""
        if self.busy:
            self._watcher.stop()  # pipelined, or the end: it waits in the socket
            return
        try:
            data = self._raw.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # as at the end
        self._greenlet.switch(data)

    def _receive(self) -> bytes:
        """Wait for bytes and return them; at the end there are none."""
        if not self._watcher.active:
            self._watcher.start(self._readable)
        received: bytes = self._hub.switch()
        return received

    def _serve(self) -> bool:
        read, buffer = self._host.plain_requests.read, self._unread
        self._unread, self.resumes = b"", False
        while True:
            if buffer:
                # others have their turn before a request that was sent ahead of an answer
                self.request_begun()
                give_turn()
                self.busy = False
            else:
                buffer = self._receive()
                if not buffer:
                    return False
            head, end, body = buffer.partition(b"\r\n\r\n")
            environ = read(head, self._base) if end else None
            if environ is None:
                break
            length = int(environ.get("CONTENT_LENGTH", 0))
            if len(body) < length:
                body = self._complete(body, length)
                if len(body) < length:
                    buffer = head + end + body
                    break
            buffer = body[length:]
            if not self._answer(environ, body[:length]):
                return False
        self._unread = buffer
        return True

    def _complete(self, body: bytes, length: int) -> bytes:
        """Wait a little for the rest of a body; return what has arrived by then."""
        # the connection is in use: neither too long idle, nor to be closed by a drain
        self.deadline = self.awaited_until = _NEVER
        self.waits_since = time.monotonic()
        with gevent.Timeout(_BODY_SECONDS, False):  # type: ignore[arg-type] # False: no error
            while len(body) < length:
                data = self._receive()
                if not data:
                    break
                body += data
        return body

    def _answer(self, environ: WSGIEnvironment, body: bytes) -> bool:
        """Answer a request; return whether the connection stays open."""
        environ[BODY] = body
        self.request_begun()
        payload, must_close = self._host.serve_plain(environ)
        self._send(payload)
        self.request_done()
        return not must_close

    def _send(self, payload: bytes) -> None:
        try:
            sent = self._raw.send(payload)
        except BlockingIOError:
            sent = 0
        if sent < len(payload):
            self.sendall(payload[sent:])

    # --- what gunicorn's loop calls

    def recv(self, size: int) -> bytes:
        """Read as a socket does; first comes what the fast loop has read.

        Raises ParseException for a head that is too large.

        Others get their turn before each piece, but not before the first piece of a head: gunicorn
        waits for that one.
        """
        first = not self.busy and not self._head_begun
        if not first:
            give_turn()
        if self._unread:
            received, self._unread = self._unread[:size], self._unread[size:]
        else:
            if self.busy:
                self.waits_since = time.monotonic()
            received = self._client.recv(size)
            if self.busy:
                self.waits_since = _NEVER
        if first:
            self._head, self._head_begun = _Head(), True
            self.waits_since = time.monotonic()
            self.deadline = self.waits_since + self._host.head_seconds
        if not self.busy:
            self._head.take(received)
        return received

    def sendall(self, data: bytes) -> None:
        """Send all. Raises ConnectionResetError if the client does not take it in time."""
        self.waits_since = time.monotonic()
        super().sendall(data)
        self.waits_since = _NEVER

    def resume(self, unread: bytes) -> None:
        """Let the fast loop go on, with the bytes that gunicorn has read and not used."""
        self._unread, self.resumes = unread + self._unread, True

    def close(self) -> None:
        """Close the connection, unless the fast loop goes on with it."""
        if not self.resumes:
            self._client.close()

    def request_begun(self) -> None:
        """Note that a request is in hand."""
        self.busy, self.awaited_until = True, 0.0
        self.deadline = self.waits_since = _NEVER

    def request_done(self) -> None:
        """Note that the client is to send its next request."""
        self.busy, self._head_begun = False, False
        self.waits_since = time.monotonic()
        self.deadline = self.waits_since + self._host.idle_seconds

    # --- what the worker asks

    def end_reading(self) -> None:
        """Let the reader see the end of the stream, after what has arrived already."""
        with contextlib.suppress(OSError):  # the other side has closed it meanwhile
            # gevent's own shutdown would not wake its reader
            self._raw.shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """End the connection at once."""
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)
