"""Runs blocking work in native threads, so that the event loop never waits for it.

``Offload`` is a pool. Each use has a pool of its own: the hub's default pool also resolves
names, and a hanging disk must not stop uploads.

``SerialExecutor`` is one thread that does one piece after the other. It does less than a
pool and is cheaper to reach: where a thread works for some 100 microseconds at a time, as
one that syncs a journal does, what it costs to go there and back counts. A byte in a pipe
wakes the thread, a byte in another one the event loop.
"""

import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from gevent import monkey
from gevent.event import AsyncResult
from gevent.hub import Waiter, get_hub
from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

T = TypeVar("T")


class Offload:
    """A pool of ``threads`` native threads; a caller waits for one while all are busy."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPool(threads)

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Run ``work(*args)`` in a thread and return its result; other greenlets go on.

        Raises what ``work`` raises. The work itself must not touch gevent.
        """
        return self.start(work, *args).get()

    def start(self, work: Callable[..., T], *args: object) -> "Result[T]":
        """Begin to run ``work(*args)`` in a thread; ``get`` of the answer waits for its result."""
        # gevent prints errors that leave a pool's thread, so they come back as values
        return Result(self._pool.spawn(wrap_errors((Exception,), work), *args))


class Result(Generic[T]):
    """The outcome of work in a thread."""

    def __init__(self, pending: "AsyncResult[T | Exception]") -> None:
        self._pending = pending

    def ready(self) -> bool:
        """Tell whether the work is done."""
        return bool(self._pending.ready())

    def get(self) -> T:
        """Wait for the work and return its result. Raises what it raised."""
        outcome = self._pending.get()
        if isinstance(outcome, Exception):
            raise outcome
        return cast("T", outcome)


_Work = tuple["Waiter[Any]", Callable[..., Any], tuple[object, ...]]
_Outcome = tuple["Waiter[Any]", Any, BaseException | None]

_READ = 1  # what the event loop watches for
_BYTES = 4096

_start_thread = monkey.get_original("_thread", "start_new_thread")


class SerialExecutor:
    """Runs work in its thread, which begins with the first and ends with this object."""

    def __init__(self) -> None:
        self._work: deque[_Work] = deque()
        self._outcomes: deque[_Outcome] = deque()
        self._pending = 0
        self._bell = self._done = -1
        self._watcher: Any = None

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Run ``work(*args)`` in the thread and return its result; other greenlets go on.

        Raises what ``work`` raises. The work itself must not touch gevent.
        """
        if self._watcher is None:
            self._begin()
        waiter: Waiter[tuple[Any, BaseException | None]] = Waiter()
        self._work.append((waiter, work, args))
        self._pending += 1
        if not self._watcher.active:
            self._watcher.start(self._deliver)
        os.write(self._bell, b"\0")
        value, error = waiter.get()
        if error is not None:
            raise error
        return cast("T", value)

    def _begin(self) -> None:
        rung, self._bell = os.pipe()
        self._done, tell = os.pipe()
        self._watcher = get_hub().loop.io(self._done, _READ)
        weakref.finalize(self, _end, self._bell, self._done, self._watcher)
        _start_thread(_serve, (self._work, self._outcomes, rung, tell))

    def _deliver(self) -> None:
        """Wake those whose work is done (a callback of the event loop)."""
        os.read(self._done, _BYTES)
        while self._outcomes:
            waiter, value, error = self._outcomes.popleft()
            self._pending -= 1
            if not self._pending:
                # an idle thread must not keep a loop going that has nothing else to wait for
                self._watcher.stop()
            waiter.switch((value, error))


def _serve(work: deque[_Work], outcomes: deque[_Outcome], rung: int, tell: int) -> None:
    """Do work until nobody can ask for more (runs in the thread)."""
    while os.read(rung, 1):
        waiter, call, args = work.popleft()
        try:
            outcomes.append((waiter, call(*args), None))
        except BaseException as exc:  # noqa: BLE001 - raised again by run()
            outcomes.append((waiter, None, exc))
        del waiter, call, args
        with contextlib.suppress(BrokenPipeError):  # nobody waits any more
            os.write(tell, b"\0")
    os.close(rung)
    os.close(tell)


def _end(bell: int, done: int, watcher: Any) -> None:
    watcher.close()
    os.close(bell)
    os.close(done)
