"""Ends a request whose body nobody has read to its end, at a bounded cost.

    the application has made its answer
    -> what is left of the body is read, within a bound of bytes and of time
    -> the answer is sent; if that was the end of the body, the connection goes on, else
    -> the server ends its side, reads on for a moment and closes the connection

A body that was read too late or was malformed ends its connection too: where the
next request begins is not known. This is for requests of gunicorn's loop, under
either worker; the fast loop hands over whole bodies only.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent

from estat.web.turns import FairSocket, give_turn

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: What is read of a body that nobody wants. Its sender sees the answer, and goes on.
UNWANTED_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024

#: A request whose body may have more sets this in its environment, in bytes.
ALLOWED = "estat.unread_bytes"

# How long, and how much, is read on after an answer that ends the connection.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 8 * 1024 * 1024


def serve(
    application: Application, environ: dict[str, Any], start_response: Any, read_seconds: float
) -> Iterable[bytes]:
    """Return the application's answer to a request, whose end may be the connection's."""
    if "estat.body" in environ:  # the fast loop has read all of it
        return application(environ, start_response)
    # gunicorn's request is reached through the method that start_response is
    request = getattr(getattr(start_response, "__self__", None), "req", None)
    unreader = getattr(request, "unreader", None)
    if request is None or unreader is None:
        return application(environ, start_response)  # a stream of HTTP/2, or other middleware's
    give_turn()  # the client may have sent many requests ahead
    if not isinstance(unreader.sock, FairSocket):
        unreader.sock = FairSocket(unreader.sock)
    answer = application(environ, start_response)
    if read_rest(request.body, environ.get(ALLOWED, UNWANTED_BYTES), read_seconds):
        return answer
    request.force_close()  # an application's own "Connection: close" is dropped by gunicorn
    return _LastAnswer(answer, unreader.sock)


def read_rest(body: Any, max_bytes: int, seconds: float) -> bool:
    """Read a body to its end; tell whether it was reached within the bounds."""
    if body.failed or getattr(body.reader, "length", 0) > max_bytes:
        return False
    # what the reader raises on a body that is malformed or cut off has no common base
    with contextlib.suppress(Exception), gevent.Timeout(seconds, False):  # type: ignore[arg-type]
        while max_bytes >= 0:  # one byte more than allowed tells too large
            piece = body.read(min(max_bytes + 1, _PIECE_BYTES))
            if not piece:
                return True
            max_bytes -= len(piece)
    return False


class _LastAnswer:
    """The answer before the end of its connection, in two steps: a reset would overtake it."""

    def __init__(self, answer: Iterable[bytes], connection: Any) -> None:
        self._answer = answer
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        """End our side, now that the answer is sent, and read on (RFC 9112, 9.6)."""
        if hasattr(self._answer, "close"):
            self._answer.close()
        with contextlib.suppress(OSError):  # silent, or gone
            self._connection.shutdown(socket.SHUT_WR)
            self._linger(time.monotonic() + _LINGER_SECONDS)

    def _linger(self, until: float) -> None:
        left = _LINGER_BYTES
        while left > 0 and (seconds := until - time.monotonic()) > 0:
            self._connection.settimeout(seconds)
            data = self._connection.recv(_PIECE_BYTES)
            if not data:
                return
            left -= len(data)
