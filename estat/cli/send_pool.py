"""The threads of ``estat send``: a queue with an end, and posters that empty it.

The calling thread reads and feeds. Each poster has a keep-alive connection of its own. A
request is taken only when there is room for it, so the memory is bounded, whatever the file's
size. Each request that is taken is counted once in the tally, also when the run is stopped.

A request that is sent twice is stored twice. So it is sent again only if it surely is not
stored: the server answered 429 or 503, or does not have the whole request (``unsent``). If the
whole request was sent and no answer came, it may be stored or not (``unanswered``).
"""

import re
import select
import ssl
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from queue import Empty, Queue
from urllib.parse import SplitResult, urlunsplit

from estat.cli.output import CommandError, complain
from estat.cli.send_tally import Outcome, Request, Tally
from estat.stores.store import full_jitter

#: Requests in hand for each poster: enough to never starve it, few enough for any body size.
REQUESTS_PER_POSTER = 3

#: The longest wait that a ``Retry-After`` may ask for.
_MAX_RETRY_AFTER_SECONDS = 30.0

_BACKOFF_BASE_SECONDS, _BACKOFF_CAP_SECONDS = 0.2, 4.0

#: How long requests in flight may take to be answered once the user has stopped the run.
_GRACE_SECONDS = 2.0

#: No event server sends a longer answer; its connection is closed.
_MAX_ANSWER_BYTES = 1024 * 1024

_STOPPED = Outcome("unsent", "the run was stopped")


class Connection:
    """Posts requests to an http or https URL, each within ``timeout_seconds`` of silence.

    It notices before it sends if the server closed the idle connection, and opens a new one.
    """

    def __init__(self, url: SplitResult, timeout_seconds: float) -> None:
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self._http = kind(url.hostname or "", url.port, timeout=timeout_seconds)
        self._path = urlunsplit(("", "", url.path or "/", url.query, ""))

    def post(self, request: Request) -> Outcome:
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
            reason = f"cannot connect to {http.host}:{http.port}: {_cause(exc)}{_remedy(exc)}"
            return Outcome("unsent", reason, unreachable=True)
        not_sent: OSError | None = None
        try:
            http.request("POST", self._path, request.body, request.headers)
        except OSError as exc:
            # the server lacks the last bytes; but one that refuses a body early (413) may have
            # answered before it closed
            not_sent = exc
        try:
            answer = self._read()
        except (OSError, HTTPException) as exc:
            http.close()
            if not_sent:
                return Outcome("unsent", f"sending failed: {_cause(not_sent)}")
            return Outcome("unanswered", self._silence(exc))
        if not_sent or answer.body is None:
            http.close()  # nobody knows where the next answer would begin
        return answer

    def close(self) -> None:
        """Close; the next request opens it anew."""
        self._http.close()

    def _read(self) -> Outcome:
        """Read an answer; its body is None if that breaks off or is too long."""
        body: bytes | None = None
        response = self._http.getresponse()
        with response, suppress(OSError, HTTPException):
            read = response.read(_MAX_ANSWER_BYTES)
            body = None if response.read(1) or response.length else read
        wait = response.getheader("Retry-After") or ""
        return Outcome("answered", response.reason, response.status, wait, body)

    def _silence(self, exc: Exception) -> str:
        """Return why there was no answer to a request that was sent whole."""
        if isinstance(exc, TimeoutError):
            return f"no answer within {self._http.timeout:g}s"
        if isinstance(exc, OSError):  # http.client.RemoteDisconnected is one, too
            return "connection closed without an answer"
        return "the answer is not HTTP: perhaps the server wants https://"


def _cause(exc: OSError) -> str:
    return exc.strerror or str(exc) or type(exc).__name__


def _remedy(exc: OSError) -> str:
    """Return what to do about an error of connecting, where that is known."""
    if isinstance(exc, ConnectionRefusedError):
        return "; start the server, or give its address with --url"
    if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLCertVerificationError):
        return "; perhaps the server has no TLS: try http://"
    return ""


class Pool:
    """Posts requests over several connections at a time and counts what becomes of them."""

    def __init__(
        self, url: SplitResult, concurrency: int, retries: int, timeout_seconds: float, tally: Tally
    ) -> None:
        self._retries = retries
        self._tally = tally
        # beside those in hand of the posters
        self._queue: Queue[Request | None] = Queue(concurrency * (REQUESTS_PER_POSTER - 1))
        self._stopped = threading.Event()
        self._cause: BaseException | None = None
        self._told = False
        self._posters = [
            # daemons: one that hangs must not keep the process
            threading.Thread(
                target=self._post, args=[Connection(url, timeout_seconds)], daemon=True
            )
            for _ in range(concurrency)
        ]

    def post_all(self, requests: Iterable[Request]) -> None:
        """Post all requests, and return when each is answered.

        Ends early with CommandError if the server can't be reached, and with
        KeyboardInterrupt if the user asks for it; the rest is then not read.
        """
        for poster in self._posters:
            poster.start()
        try:
            for request in requests:
                self._tally.read += request.events
                self._queue.put(request)
                if self._stopped.is_set():
                    break
            self._join(threading.TIMEOUT_MAX)
        except KeyboardInterrupt as exc:
            self._stop(exc)
            with suppress(Empty):
                while waiting := self._queue.get_nowait():
                    self._tally.add_outcome(waiting, _STOPPED)
            self._join(_GRACE_SECONDS)
        if self._cause is not None:
            raise self._cause

    def _join(self, seconds: float) -> None:
        """Wait until the posters have come to the end of the queue, or so long."""
        for _ in self._posters:
            self._queue.put(None)
        deadline = time.monotonic() + seconds
        for poster in self._posters:
            poster.join(max(0.0, deadline - time.monotonic()))

    def _stop(self, cause: BaseException) -> None:
        """Stop the run, which then raises its first cause."""
        self._cause = self._cause or cause
        self._stopped.set()

    def _post(self, connection: Connection) -> None:
        """Post what is queued until None comes; a fault of our own stops the whole run."""
        while (request := self._queue.get()) is not None:
            try:
                self._deliver(connection, request)
            except Exception as exc:  # noqa: BLE001 - raised again by the thread that runs the pool
                self._stop(exc)
        connection.close()

    def _deliver(self, connection: Connection, request: Request) -> None:
        """Post as often as is safe and allowed; count what came of the last attempt."""
        outcome = _STOPPED
        wait_seconds = 0.0
        for attempt in range(self._retries + 1):
            # a request that is stopped while it waits has still the outcome of its last attempt
            if self._stopped.wait(wait_seconds):
                break
            if attempt:
                self._tally.add_retry()
            outcome = connection.post(request)
            if outcome.unreachable and not attempt and self._retries and not self._told:
                self._told = True  # the line of progress does not begin before the first answer
                complain("send", f"{outcome.reason}; trying again")
            if outcome.status not in (429, 503) and outcome.fate != "unsent":
                break
            wait_seconds = _wait_seconds(outcome, attempt)
        self._tally.add_outcome(request, outcome)
        if outcome.unreachable and not self._stopped.is_set():
            # no retry reached the server, so the rest of the file would not either
            self._stop(CommandError(outcome.reason, code=1))


def _wait_seconds(outcome: Outcome, attempt: int) -> float:
    """Return what Retry-After asks for; a date, which this server never sends, is ignored."""
    if re.fullmatch(r"\s*\d{1,9}\s*", outcome.retry_after):
        return min(float(outcome.retry_after), _MAX_RETRY_AFTER_SECONDS)
    return full_jitter(attempt, _BACKOFF_BASE_SECONDS, _BACKOFF_CAP_SECONDS)
