"""Runs blocking work in native threads, so that the event loop never waits for it.

Each use has a pool of its own: the hub's default pool also resolves names, and
a hanging disk must not stop uploads.
"""

from collections.abc import Callable
from typing import Generic, TypeVar, cast

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
        return self.start(work, *args).get()

    def start(self, work: Callable[..., T], *args: object) -> "Result[T]":
        """Begin to run ``work(*args)`` in a thread; ``get`` of the answer waits for its result."""
        return Result(self._pool.spawn(_outcome, work, args))


class Result(Generic[T]):
    """What became of work in a thread."""

    def __init__(self, pending: "AsyncResult[tuple[T | None, Exception | None]]") -> None:
        self._pending = pending

    def ready(self) -> bool:
        """Tell whether the work is done."""
        return bool(self._pending.ready())

    def get(self) -> T:
        """Wait for the work and return its result. Raises what it raised."""
        value, error = cast("tuple[T, Exception | None]", self._pending.get())
        if error is not None:
            raise error
        return value


def _outcome(work: Callable[..., T], args: tuple[object, ...]) -> tuple[T | None, Exception | None]:
    """Keep an error as a value: gevent prints those that leave a pool's thread."""
    try:
        return work(*args), None
    except Exception as exc:  # noqa: BLE001 - raised again by get()
        return None, exc
