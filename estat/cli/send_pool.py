"""The threads of ``estat send``: a queue with an end, and posters that empty it.

The calling thread reads and feeds. Each poster has a connection of its own. A request is
taken only when there is room for it, so the memory is bounded, whatever the file's size. A
request is sent again only if it surely is not stored: the server answered 429 or 503, or did
not get the whole request. Each request that is taken is counted once in the tally, also when
the run is stopped.
"""

import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import SimpleQueue
from urllib.parse import SplitResult

from estat.cli.http_post import Answer, Connection, Failure, Request
from estat.cli.problems import CommandError
from estat.cli.send_tally import Tally

#: Requests in hand for each poster: enough to never starve it, few enough for any body size.
REQUESTS_PER_POSTER = 3

#: The longest wait that a ``Retry-After`` may ask for.
_MAX_RETRY_AFTER_SECONDS = 30.0

_FIRST_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 2.0

#: How long requests in flight may take to be answered once the user has stopped the run.
_GRACE_SECONDS = 2.0

_STOPPED = Failure("unsent", "the run was stopped")


class Pool:
    """Posts requests over several connections at a time and counts what becomes of them."""

    def __init__(
        self, url: SplitResult, concurrency: int, retries: int, timeout_seconds: float, tally: Tally
    ) -> None:
        self._retries = retries
        self._tally = tally
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._room = threading.Semaphore(concurrency * REQUESTS_PER_POSTER)
        self._stopped = threading.Event()
        self._cause: BaseException | None = None
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
        KeyboardInterrupt if the user asks for it; the rest is then not read. An error
        of reading ``requests`` is raised once all that was read before it is posted.
        """
        for poster in self._posters:
            poster.start()
        try:
            for request in requests:
                self._tally.add_read(request.events)
                self._queue.put(request)
                self._room.acquire()
                if self._stopped.is_set():
                    break
        except KeyboardInterrupt as exc:
            self._stop(exc)
        finally:
            self._finish()
        if self._cause is not None:
            raise self._cause

    def _finish(self) -> None:
        """Wait until the posters have sent what is queued; once stopped, for a moment only."""
        for _ in self._posters:
            self._queue.put(None)
        try:
            self._join(_GRACE_SECONDS if self._stopped.is_set() else threading.TIMEOUT_MAX)
        except KeyboardInterrupt as exc:
            self._stop(exc)
            with suppress(KeyboardInterrupt):  # the user asks twice: no grace
                self._join(_GRACE_SECONDS)

    def _join(self, seconds: float) -> None:
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
            self._room.release()
        connection.close()

    def _deliver(self, connection: Connection, request: Request) -> None:
        """Post as often as is safe and allowed; count what came of the last attempt."""
        outcome: Answer | Failure = _STOPPED
        backoff = _FIRST_BACKOFF_SECONDS
        for attempt in range(self._retries + 1):
            # a request that is stopped while it waits has still the outcome of its last attempt
            if self._stopped.wait(_wait_seconds(outcome, backoff) if attempt else 0):
                break
            if attempt:
                self._tally.add_retry()
                backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
            outcome = connection.post(request)
            if not _may_go_again(outcome):
                break
        self._tally.add_outcome(request, outcome)
        if isinstance(outcome, Failure) and outcome.unreachable and not self._stopped.is_set():
            # no retry reached the server, so the rest of the file would not either
            self._stop(CommandError(outcome.reason, code=1))


def _may_go_again(outcome: Answer | Failure) -> bool:
    """Return whether the request surely is not stored and a later attempt may succeed."""
    if isinstance(outcome, Answer):
        return outcome.status in {429, 503}
    return outcome.fate == "unsent"


def _wait_seconds(outcome: Answer | Failure, backoff: float) -> float:
    """Return what Retry-After asks for; a date, which this server never sends, is ignored."""
    asked = outcome.retry_after if isinstance(outcome, Answer) else None
    if asked is None or not re.fullmatch(r"\d{1,9}", asked.strip()):
        return backoff
    return min(float(asked), _MAX_RETRY_AFTER_SECONDS)
