"""Ends a request whose body nobody has read to its end, at a bounded cost.

    the application has made its answer
    -> what is left of the body is read, within a bound of bytes and of time
    -> the answer is sent; if the end of the body was reached, the connection goes on, else
    -> the server ends its side, reads on for a moment and closes the connection

A body that came too late or was malformed ends its connection too, for nobody knows where
the next request begins. This is for requests in gunicorn's loop, under either worker. The
fast loop takes only requests whose whole body it has read.
"""

import contextlib
import socket
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import gevent
from gunicorn.http.body import ChunkedReader

from estat.pipeline.pipeline import Pipeline
from estat.server.chunks import Chunks
from estat.web.app import Front
from estat.web.environ import BODY, UNREAD_BYTES
from estat.web.turns import FairSocket, give_turn

# How much of a body that nobody wants is read, so that its sender sees the answer and goes on.
_UNWANTED_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024

# How long, and how much, is read on after an answer that ends the connection.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 8 * 1024 * 1024


class UnreadBodies:
    """Serves requests with an application, and ends those whose body it has not read."""

    def __init__(self, pipeline: Pipeline, front: Front) -> None:
        #: The hooks start and drain it.
        self.pipeline = pipeline
        self.accept = front.accept  # the fast loop asks it first
        self.application: WSGIApplication = front
        self._read_seconds = pipeline.settings.read_timeout

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Return the application's answer; end the connection after it if need be."""
        if BODY in environ:  # the fast loop has read all of it
            return self.application(environ, start_response)
        # gunicorn's request is reached through the method that start_response is
        request: Any = getattr(getattr(start_response, "__self__", None), "req", None)
        unreader: Any = getattr(request, "unreader", None)
        if unreader is None:
            return self.application(environ, start_response)  # HTTP/2, or another middleware
        give_turn()  # the client may have sent many requests at once
        if isinstance(request.body.reader, ChunkedReader):
            request.body.reader = Chunks(request, unreader)
        answer = self.application(environ, start_response)
        if _read_rest(request.body, environ.get(UNREAD_BYTES, _UNWANTED_BYTES), self._read_seconds):
            return answer
        request.force_close()  # gunicorn drops an application's own "Connection: close"
        return _LastAnswer(answer, unreader.sock)


def _read_rest(body: Any, max_bytes: int, seconds: float) -> bool:
    """Read the rest of a body; return whether its end was reached within the bounds."""
    if body.failed or getattr(body.reader, "length", 0) > max_bytes:
        return False
    # errors of gunicorn's reader on a body that is malformed or cut off have no common base
    with contextlib.suppress(Exception), gevent.Timeout(seconds, False):  # type: ignore[arg-type]
        while max_bytes >= 0:  # one byte over the limit shows that the body is too large
            piece = body.read(min(max_bytes + 1, _PIECE_BYTES))
            if not piece:
                return True
            max_bytes -= len(piece)
    return False


class _LastAnswer:
    """An answer that ends its connection in two steps, for a reset could overtake the answer."""

    def __init__(self, answer: Iterable[bytes], connection: FairSocket) -> None:
        self._answer = answer
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        """End our side, now that the answer is sent, and read on (RFC 9112, 9.6)."""
        if hasattr(self._answer, "close"):
            self._answer.close()
        left = _LINGER_BYTES
        with contextlib.suppress(OSError), gevent.Timeout(_LINGER_SECONDS, False):  # type: ignore[arg-type]
            self._connection.shutdown(socket.SHUT_WR)
            while left > 0 and (data := self._connection.recv(_PIECE_BYTES)):
                left -= len(data)
