"""Runs blocking work in native threads, so that the event loop never waits for it.

Each use has a pool of its own: the hub's default pool also resolves names, and
a hanging disk must not stop uploads.
"""

from collections.abc import Callable
from typing import TypeVar

from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

T = TypeVar("T")


class Offload:
    """A pool of ``threads`` native threads; a caller waits for one while all are busy."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPool(threads)

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Run ``work(*args)`` in a thread and return its result; other greenlets go on.

        Raises what ``work`` raises. The work itself must not touch gevent.
        """
        result: T = self._pool.apply(work, args)
        return result

    def start(self, work: Callable[..., T], *args: object) -> "AsyncResult[T]":
        """Begin to run ``work(*args)`` in a thread; ``get`` of the answer waits for its result."""
        started: AsyncResult[T] = self._pool.spawn(work, *args)
        return started
