"""The threads of ``estat send``: a bounded queue, and posters that empty it.

The calling thread reads and feeds, and draws the progress bar while it waits;
each poster has a connection of its own. Memory is bounded by the queue, whatever
the file's size. A request goes out again only if it surely is not stored: it was
answered 429 or 503, or never sent whole. Every request that is taken is counted
once in the tally, also when the run is stopped.
"""

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable

from estat.cli.http_post import (
    Answer,
    Connection,
    NotSentError,
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

#: What ``Retry-After`` may ask for, at most.
_MAX_RETRY_AFTER_SECONDS = 30.0

_FIRST_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 2.0

#: How long requests in flight may take to be answered once the run is stopped.
_GRACE_SECONDS = 2.0

_STOPPED = "the run was stopped"


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
        self._tally = tally
        self._tick = tick
        self._stopped = threading.Event()
        self._queue: queue.Queue[Request | None] = queue.Queue(concurrency * _WAITING_PER_POSTER)
        self._posters = [
            _Poster(Connection(target, timeout_seconds), self._queue, retries, tally, self._stopped)
            for _ in range(concurrency)
        ]
        self.interrupted = False
        self.unreachable: str | None = None

    def run(self, requests: Iterable[Request]) -> None:
        """Post all requests.

        Ends early if the user interrupts it (``interrupted``) or if the server
        can't be reached (``unreachable`` says why). Errors of reading ``requests``
        are raised once all that was read before them is posted.
        """
        for poster in self._posters:
            poster.start()
        try:
            self._feed(requests)
        except KeyboardInterrupt:
            self._interrupt()
        finally:
            self._end()

    def _interrupt(self) -> None:
        self.interrupted = True
        self._stopped.set()

    def _feed(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._tally.add_read(request.events)
            if not self._offer(request):
                self._tally.add_unsent(request, _STOPPED)
                return
            self._tick()

    def _end(self) -> None:
        """Let the posters end after what is queued, or stop them."""
        try:
            for _ in self._posters:
                self._offer(None)
            self._join(None)
        except KeyboardInterrupt:
            self._interrupt()
        if self._stopped.is_set():
            self._stop()
        for poster in self._posters:
            if poster.failure is not None:
                raise poster.failure
            self.unreachable = self.unreachable or poster.unreachable

    def _offer(self, item: Request | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_TICK_SECONDS)
            except queue.Full:
                self._tick()
            else:
                return True
        return False

    def _join(self, seconds: float | None) -> None:
        """Wait until all posters ended, the run is stopped (without ``seconds``), or in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        for poster in self._posters:
            while poster.is_alive():
                poster.join(_TICK_SECONDS)
                self._tick()
                if self._stopped.is_set() if deadline is None else time.monotonic() > deadline:
                    return

    def _stop(self) -> None:
        """End the posters: what waits is unsent, what is in flight gets a moment for its answer."""
        try:
            self._empty()
            for _ in self._posters:
                self._queue.put_nowait(None)
            self._join(_GRACE_SECONDS)
        except KeyboardInterrupt:
            pass  # asked twice: no grace
        for poster in self._posters:
            poster.abort()
        self._join(_GRACE_SECONDS)
        self._tally.settle("stopped before an answer")

    def _empty(self) -> None:
        while True:
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return
            if request is not None:
                self._tally.add_unsent(request, _STOPPED)


class _Poster(threading.Thread):
    """Takes requests from the queue until it finds None."""

    def __init__(
        self,
        connection: Connection,
        requests: "queue.Queue[Request | None]",
        retries: int,
        tally: Tally,
        stopped: threading.Event,
    ) -> None:
        super().__init__(daemon=True)  # one that hangs must not keep the process
        self._connection = connection
        self._requests = requests
        self._retries = retries
        self._tally = tally
        self._stopped = stopped
        self.unreachable: str | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        """Post until the queue ends; a fault of our own stops the whole run."""
        try:
            while (request := self._requests.get()) is not None:
                self._deliver(request)
        except Exception as exc:  # noqa: BLE001 - raised again by the thread that waits for this one
            self.failure = exc
            self._stopped.set()
        finally:
            self._connection.close()

    def abort(self) -> None:
        """End a wait for an answer."""
        self._connection.abort()

    def _deliver(self, request: Request) -> None:
        """Post until the request is accounted for, which it is when this returns."""
        if self._stopped.is_set():
            self._tally.add_unsent(request, _STOPPED)
            return
        retries_left = self._retries
        backoff = _FIRST_BACKOFF_SECONDS
        while (outcome := self._attempt(request)) is not None:
            wait = backoff
            if isinstance(outcome, Answer):
                wait = _retry_after_seconds(outcome, backoff)
            if not retries_left or self._stopped.wait(wait):
                self._give_up(request, outcome)
                return
            retries_left -= 1
            backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
            self._tally.add_retry()

    def _attempt(self, request: Request) -> Answer | NotSentError | None:
        """Post once; return None if the request is accounted for, else why it may go again."""
        try:
            answer = self._connection.post(request)
        except NotSentError as exc:
            return exc
        except UnansweredError as exc:
            self._tally.add_unanswered(request, str(exc))
            return None
        if answer.status in {429, 503}:
            return answer
        self._tally.add_answer(request, answer)
        return None

    def _give_up(self, request: Request, outcome: Answer | NotSentError) -> None:
        if isinstance(outcome, Answer):
            self._tally.add_answer(request, outcome)
            return
        self._tally.add_unsent(request, str(outcome))
        if isinstance(outcome, UnreachableError) and not self._stopped.is_set():
            # whoever can't be reached through all retries won't be for the rest of the file
            self.unreachable = str(outcome)
            self._stopped.set()


def _retry_after_seconds(answer: Answer, default: float) -> float:
    """Return the seconds to wait; a date, which this server never sends, counts as nothing."""
    if answer.retry_after is None or not re.fullmatch(r"\d{1,9}", answer.retry_after.strip()):
        return default
    return min(float(answer.retry_after), _MAX_RETRY_AFTER_SECONDS)
