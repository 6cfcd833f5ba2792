"""One keep-alive connection that posts requests; one thread uses it.

A request that is sent twice is stored twice. So each failure says what the server has:

- ``unsent``: the server surely does not have the whole request; another attempt is safe.
- ``unanswered``: the whole request was sent and no answer came; it may be stored or not.

This module never sends a request again. It notices before it sends if the server closed the
idle connection, and opens a new one.
"""

import select
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, urlunsplit

#: An answer that is longer is none of an event server's, and its connection is closed.
_MAX_ANSWER_BYTES = 1024 * 1024


class Request(NamedTuple):
    """One request's body and headers, and how many events it holds."""

    body: bytes
    headers: dict[str, bytes]
    events: int


class Answer(NamedTuple):
    """What the server said. ``body`` is None if the connection broke within it."""

    status: int
    reason: str
    retry_after: str | None
    body: bytes | None


class Failure(NamedTuple):
    """Why there is no answer, and what that means for the request's events."""

    fate: Literal["unsent", "unanswered"]
    reason: str
    #: Whether not even a connection could be opened.
    unreachable: bool = False


class Connection:
    """Posts requests to an http or https URL, each within ``timeout_seconds`` of silence."""

    def __init__(self, url: SplitResult, timeout_seconds: float) -> None:
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self._http = kind(url.hostname or "", url.port, timeout=timeout_seconds)
        self._path = urlunsplit(("", "", url.path or "/", url.query, ""))

    def post(self, request: Request) -> Answer | Failure:
        """Send a request; return its answer, or why there is none."""
        http = self._http
        if http.sock is not None and select.select([http.sock], [], [], 0)[0]:
            # no request is open, so this is the end of the stream, or an answer to nothing
            http.close()
        try:
            if http.sock is None:
                http.connect()
        except OSError as exc:
            http.close()
            reason = f"cannot connect to {http.host}:{http.port}: {_cause(exc)}"
            return Failure("unsent", reason, unreachable=True)
        not_sent: OSError | None = None
        try:
            http.request("POST", self._path, request.body, request.headers)
        except OSError as exc:
            # the server lacks the last bytes; but one that refuses a body early (413) may have
            # answered before it closed
            not_sent = exc
        try:
            answer = _read(http.getresponse())
        except (OSError, HTTPException) as exc:
            http.close()
            if not_sent:
                return Failure("unsent", f"sending failed: {_cause(not_sent)}")
            return Failure("unanswered", self._silence(exc))
        if not_sent or answer.body is None:
            http.close()  # nobody knows where the next answer would begin
        return answer

    def close(self) -> None:
        """Close; the next request opens it anew."""
        self._http.close()

    def _silence(self, exc: Exception) -> str:
        """Return why there was no answer to a request that was sent whole."""
        if isinstance(exc, TimeoutError):
            return f"no answer within {self._http.timeout:g}s"
        if isinstance(exc, OSError):  # http.client.RemoteDisconnected is one, too
            return "connection closed without an answer"
        return "the answer is not HTTP"


def _read(response: HTTPResponse) -> Answer:
    """Read an answer; one whose body breaks off has none."""
    body: bytes | None = None
    with response, suppress(OSError, HTTPException):
        read = response.read(_MAX_ANSWER_BYTES)
        body = None if response.read(1) or response.length else read
    return Answer(response.status, response.reason, response.getheader("Retry-After"), body)


def _cause(exc: OSError) -> str:
    return exc.strerror or str(exc) or type(exc).__name__
