"""One keep-alive connection that posts requests; one thread uses it.

A request that is sent twice is stored twice. So each failure says what the server has:

- ``NotSentError``: the server surely does not have the whole request; another attempt is
  safe. ``UnreachableError``: not even a connection could be opened.
- ``UnansweredError``: the whole request was sent and no answer came; it may be stored or not.

This module never sends a request again. It notices before it sends if the server closed the
idle connection, and opens a new one.
"""

import select
import socket
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlsplit

#: Bytes of an answer that are read: it lists 20 errors at most.
_ANSWER_BYTES = 1024 * 1024


class NotSentError(Exception):
    """The server can't have the whole request."""


class UnreachableError(NotSentError):
    """No connection could be opened."""


class UnansweredError(Exception):
    """The request was sent, but no answer came."""


class Target(NamedTuple):
    """Where requests go; ``path`` includes the query."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def from_url(cls, url: str) -> "Target":
        """Read an http or https URL. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// URL")
        if parts.username is not None:
            raise ValueError("a name or password in the URL would not be sent")
        if not url.isascii() or any(char <= " " for char in url):
            raise ValueError(f"{url!r} must be percent-encoded")
        secure = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(secure, parts.hostname, parts.port or (443 if secure else 80), path)


class Request(NamedTuple):
    """One request's body and headers, and how many events it holds."""

    body: bytes
    headers: tuple[tuple[str, bytes], ...]
    events: int


class Answer(NamedTuple):
    """What the server said. ``body`` is None if the connection broke within it."""

    status: int
    reason: str
    retry_after: str | None
    body: bytes | None


#: What becomes of a request, as it is counted.
Outcome = Answer | NotSentError | UnansweredError


class Connection:
    """Posts requests to a target, each within ``timeout_seconds`` of silence."""

    def __init__(self, target: Target, timeout_seconds: float) -> None:
        self._target = target
        self._timeout_seconds = timeout_seconds
        kind = HTTPSConnection if target.secure else HTTPConnection
        self._http = kind(target.host, target.port, timeout=timeout_seconds)

    def post(self, request: Request) -> Answer:
        """Send a request and return its answer. Raises NotSentError or UnansweredError."""
        self._connect()
        not_sent: OSError | None = None
        try:
            self._send(request)
        except OSError as exc:
            # the server lacks the last bytes; but one that refuses a body early (413) may have
            # answered before it closed
            not_sent = exc
        try:
            response = self._http.getresponse()
        except (OSError, HTTPException) as exc:
            self.close()
            if not_sent is not None:
                raise NotSentError(f"sending failed: {_cause(not_sent)}") from not_sent
            if isinstance(exc, TimeoutError):
                raise UnansweredError(f"no answer within {self._timeout_seconds:g}s") from exc
            if isinstance(exc, OSError):  # http.client.RemoteDisconnected is one, too
                raise UnansweredError("connection closed without an answer") from exc
            raise UnansweredError("the answer is not HTTP") from exc
        with response:
            retry_after = response.getheader("Retry-After")
            answer = Answer(response.status, response.reason, retry_after, _body(response))
            read_whole = answer.body is not None and response.isclosed()
        if not_sent is not None or not read_whole:
            self.close()  # nobody knows where the next answer would begin
        return answer

    def close(self) -> None:
        """Close; the next request opens it anew."""
        self._http.close()

    def abort(self) -> None:
        """End a wait for an answer; may be called from another thread."""
        sock = self._http.sock
        if sock is not None:
            with suppress(OSError):  # it was closed meanwhile
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> None:
        if self._http.sock is not None and _readable(self._http.sock):
            # no request is open, so this is the end of the stream, or an answer to nothing
            self.close()
        if self._http.sock is None:
            try:
                self._http.connect()
            except OSError as exc:
                self.close()
                where = f"{self._target.host}:{self._target.port}"
                raise UnreachableError(f"cannot connect to {where}: {_cause(exc)}") from exc

    def _send(self, request: Request) -> None:
        self._http.putrequest("POST", self._target.path, skip_accept_encoding=True)
        for name, value in request.headers:
            self._http.putheader(name, value)
        self._http.putheader("Content-Length", str(len(request.body)))
        self._http.endheaders(request.body)


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _body(response: HTTPResponse) -> bytes | None:
    try:
        body = response.read(_ANSWER_BYTES)
    except (OSError, HTTPException):
        return None
    # a read with a size doesn't complain about a stream that ends early
    return None if response.length else body


def _cause(exc: OSError) -> str:
    return exc.strerror or str(exc) or type(exc).__name__
