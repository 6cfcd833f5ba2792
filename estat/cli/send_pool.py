"""The threads of ``estat send``: a bounded queue, and posters that empty it.

The calling thread reads and feeds, and draws the progress bar while it waits. Each poster
has a connection of its own. The queue bounds the memory, whatever the file's size. A request
is sent again only if it surely is not stored: the server answered 429 or 503, or did not get
the whole request. Each request that is taken is counted once in the tally, also when the run
is stopped.
"""

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from estat.cli.http_post import (
    Answer,
    Connection,
    NotSentError,
    Outcome,
    Request,
    Target,
    UnansweredError,
    UnreachableError,
)
from estat.cli.send_tally import Tally

#: Requests that wait for each poster: enough to never starve it, few enough for any body size.
_WAITING_PER_POSTER = 2

#: Seconds between two looks at the progress bar and at posters that died.
_TICK_SECONDS = 0.1

#: The longest wait that a ``Retry-After`` may ask for.
_MAX_RETRY_AFTER_SECONDS = 30.0

_FIRST_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 2.0

#: How long requests in flight may take to be answered once the run is stopped.
_GRACE_SECONDS = 2.0

_STOPPED = NotSentError("the run was stopped")


class Pool:
    """Posts requests over several connections at a time and counts what becomes of them.

    ``tick`` is called from the calling thread, about ten times a second.
    """

    def __init__(
        self,
        target: Target,
        concurrency: int,
        retries: int,
        timeout_seconds: float,
        tally: Tally,
        tick: Callable[[], None],
    ) -> None:
        self._retries = retries
        self._tally = tally
        self._tick = tick
        self._queue: queue.Queue[Request | None] = queue.Queue(concurrency * _WAITING_PER_POSTER)
        self._stopped = threading.Event()
        self._cause: BaseException | None = None
        self._connections = [Connection(target, timeout_seconds) for _ in range(concurrency)]
        self._posters = [
            # daemons: one that hangs must not keep the process
            threading.Thread(target=self._post, args=[connection], daemon=True)
            for connection in self._connections
        ]

    def post_all(self, requests: Iterable[Request]) -> None:
        """Post all requests, and return when each is accounted for.

        Ends early with UnreachableError if the server can't be reached, and with
        KeyboardInterrupt if the user asks for it; the rest is then not read. An error
        of reading ``requests`` is raised once all that was read before it is posted.
        """
        for poster in self._posters:
            poster.start()
        try:
            self._feed(requests)
        except KeyboardInterrupt as exc:
            self._stop(exc)
        finally:
            self._finish()
        if self._cause is not None:
            raise self._cause

    def _feed(self, requests: Iterable[Request]) -> None:
        """Read and queue all requests, or as many as come before the run is stopped."""
        for request in requests:
            self._tally.add_read(request.events)
            if not self._offer(request):
                self._tally.add_outcome(request, _STOPPED)
                return
            self._tick()

    def _finish(self) -> None:
        """Wait until the posters have sent what is queued, or the run is stopped."""
        try:
            for _ in self._posters:
                self._offer(None)
            self._join(self._stopped.is_set)
        except KeyboardInterrupt as exc:
            self._stop(exc)
        if self._stopped.is_set():
            self._abandon()

    def _stop(self, cause: BaseException) -> None:
        """Stop the run, which then raises its first cause."""
        self._cause = self._cause or cause
        self._stopped.set()

    def _abandon(self) -> None:
        """End the posters: what waits is unsent, what is in flight gets a moment for its answer."""
        with suppress(KeyboardInterrupt):  # the user asks twice: no grace
            with suppress(queue.Empty):
                while True:
                    if request := self._queue.get_nowait():
                        self._tally.add_outcome(request, _STOPPED)
            for _ in self._posters:
                self._queue.put_nowait(None)
            self._join(_after(_GRACE_SECONDS))
        for connection in self._connections:
            connection.abort()
        self._join(_after(_GRACE_SECONDS))
        self._tally.settle("stopped before an answer")

    def _offer(self, item: Request | None) -> bool:
        """Queue a request, or the end for one poster; return False if the run is stopped."""
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_TICK_SECONDS)
            except queue.Full:
                self._tick()
            else:
                return True
        return False

    def _join(self, is_over: Callable[[], bool]) -> None:
        """Wait until all posters have ended, or the wait is over."""
        for poster in self._posters:
            while poster.is_alive() and not is_over():
                poster.join(_TICK_SECONDS)
                self._tick()

    def _post(self, connection: Connection) -> None:
        """Post what is queued until None comes; a fault of our own stops the whole run."""
        try:
            while (request := self._queue.get()) is not None:
                outcome = self._delivered(connection, request)
                self._tally.add_outcome(request, outcome)
                if isinstance(outcome, UnreachableError) and not self._stopped.is_set():
                    # no retry reached the server, so the rest of the file would not either
                    self._stop(outcome)
        except Exception as exc:  # noqa: BLE001 - raised again by the thread that runs the pool
            self._stop(exc)
        finally:
            connection.close()

    def _delivered(self, connection: Connection, request: Request) -> Outcome:
        """Post as often as is safe and allowed; return what came of the last attempt."""
        if self._stopped.is_set():
            return _STOPPED
        outcome = _attempt(connection, request)
        retries_left = self._retries
        backoff = _FIRST_BACKOFF_SECONDS
        while retries_left and _may_go_again(outcome):
            if self._stopped.wait(_wait_seconds(outcome, backoff)):
                break
            self._tally.add_retry()
            outcome = _attempt(connection, request)
            retries_left -= 1
            backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
        return outcome


def _attempt(connection: Connection, request: Request) -> Outcome:
    """Post once; return a failure as what became of the request, like an answer."""
    try:
        return connection.post(request)
    except (NotSentError, UnansweredError) as exc:
        return exc


def _may_go_again(outcome: Outcome) -> bool:
    """Return whether the request surely is not stored and a later attempt may succeed."""
    if isinstance(outcome, Answer):
        return outcome.status in {429, 503}
    return isinstance(outcome, NotSentError)


def _wait_seconds(outcome: Outcome, backoff: float) -> float:
    """Return what Retry-After asks for; a date, which this server never sends, is ignored."""
    asked = outcome.retry_after if isinstance(outcome, Answer) else None
    if asked is None or not re.fullmatch(r"\d{1,9}", asked.strip()):
        return backoff
    return min(float(asked), _MAX_RETRY_AFTER_SECONDS)


def _after(seconds: float) -> Callable[[], bool]:
    """Return whether these seconds are over, as a function to ask again and again."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline
