"""One native thread that does blocking work, one piece after the other.

It does less than ``Offload``'s pool and is cheaper to reach: where a thread works
for some 100 microseconds at a time, as one that syncs a journal does, what it
costs to go there and back counts. A byte in a pipe wakes the thread, a byte in
another one the event loop.
"""

import os
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from gevent import monkey
from gevent.hub import Waiter, get_hub

T = TypeVar("T")

_READ = 1  # what the event loop watches for
_BYTES = 4096

_start_thread = monkey.get_original("_thread", "start_new_thread")


class SerialExecutor:
    """Runs work in its thread, which begins with the first."""

    def __init__(self) -> None:
        self._work: deque[tuple[Waiter[Any], Callable[..., Any], tuple[object, ...]]] = deque()
        self._outcomes: deque[tuple[Waiter[Any], tuple[Any, Exception | None]]] = deque()
        self._bell = -1
        self._watcher: Any = None

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Run ``work(*args)`` in the thread and return its result; other greenlets go on.

        Raises what ``work`` raises. The work itself must not touch gevent.
        """
        if self._watcher is None:
            self._begin()
        waiter: Waiter[Any] = Waiter()
        self._work.append((waiter, work, args))
        os.write(self._bell, b"\0")
        value, error = waiter.get()
        if error is not None:
            raise error
        return cast("T", value)

    def _begin(self) -> None:
        rung, self._bell = os.pipe()
        done, tell = os.pipe()
        self._watcher = get_hub().loop.io(done, _READ)
        self._watcher.start(self._deliver, done)
        _start_thread(self._loop, (rung, tell))

    def _loop(self, rung: int, tell: int) -> None:
        """Work for ever (in the thread)."""
        while True:
            os.read(rung, 1)
            waiter, work, args = self._work.popleft()
            outcome: tuple[Any, Exception | None]
            try:
                outcome = work(*args), None
            except Exception as exc:  # noqa: BLE001 - raised again by run()
                outcome = None, exc
            self._outcomes.append((waiter, outcome))
            os.write(tell, b"\0")

    def _deliver(self, done: int) -> None:
        """Wake those whose work is done (a callback of the event loop)."""
        os.read(done, _BYTES)
        while self._outcomes:
            waiter, outcome = self._outcomes.popleft()
            waiter.switch(outcome)
