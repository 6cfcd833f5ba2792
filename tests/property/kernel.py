"""Processes that run in turns in this one: each has files, and dies or stands still anywhere.

A process runs its steps one at a time. A step can be left between any two operations on files:
the process stands still then (SIGSTOP, a paused container), or only that step of it does while
others go on, as with a slow disk behind a pool of threads. Everything runs in one thread.
"""

import contextlib
import fcntl
import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import gevent
from greenlet import getcurrent, greenlet

from estat.pipeline import replayer
from estat.threads import Offload, SerialExecutor
from tests.property.mortal import CHANGES, ERRORS, REAL, Died, Disk, Fate

T = TypeVar("T")

NOW = 4102444800.0  # later than any real time
_MADE = ("open", "rename", "link", "unlink", "mkdir", "rmdir")  # by path
_WATCHED = ("utime", "pwrite", "scandir", "listdir", "stat", "fdopen")
_LIMIT = 1000  # of turns that steps need to end


class EndOfTurn(BaseException):
    """A loop waits for its next turn."""


class Process(Disk):
    """A process, and the steps that it is in the middle of."""

    def __init__(self, kernel: "Kernel", owner: Any) -> None:
        super().__init__()
        self.owner = owner
        self.stopped = False
        self.steps: dict[str, greenlet] = {}
        self._kernel = kernel

    def next_kind(self, name: str) -> str:
        kind = super().next_kind(name)
        if kind in ERRORS and name not in CHANGES:
            return "fine"
        if kind not in ("stops", "waits"):
            return kind
        self.stopped = kind == "stops"
        # what does not run in a thread holds the loop up, and with it all of the process
        if self.stopped or self._kernel.depth(getcurrent()):
            self.leave()
        return "fine"

    def leave(self) -> None:
        """Leave the step here, until the process runs it again."""
        main = getcurrent().parent
        assert main
        main.switch()
        if self.dead:
            raise Died

    def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "put":
            return args[0]()
        if name == "fdopen":  # whoever has the file closes it
            self._open.discard(args[0])
        is_made = name in _MADE and (name != "open" or args[1] & os.O_CREAT)
        for path in args[:2] if is_made else ():
            if isinstance(path, str):
                self.owner.check_path(path)
        return super()._do(name, *args, **kwargs)

    def inherit(self, descriptor: int) -> int:
        """Have a file open that another process has opened: they share its lock."""
        copy = os.dup(descriptor)
        self._open.add(copy)
        return copy

    def has_locked(self, file: os.stat_result) -> bool:
        return any(
            os.path.samestat(os.fstat(descriptor), file) and _is_locked(descriptor)
            for descriptor in self._open
        )

    def lose_locks(self) -> None:
        """Let its locks be free, as a network volume does with those of a host that is cut off."""
        for descriptor in filter(_is_locked, self._open):
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def kill(self) -> None:
        """Let it do nothing more, and close its files."""
        self.dead, self.stopped = True, False
        for step in self.steps.values():
            with self._kernel.running(self):
                step.throw(Died)
        self.steps.clear()
        with self._kernel.running(self):
            # what is thrown away later would close files that have their numbers by then
            gc.collect()
        self.bury()
        self.dead = True


def _is_locked(descriptor: int) -> bool:
    return "FLOCK" in Path(f"/proc/self/fdinfo/{descriptor}").read_text()


class Kernel:
    """Runs the processes; a context manager in which nothing else uses files and clocks."""

    def __init__(self) -> None:
        self.current: Process | None = None
        self.now = NOW
        self.wrong_by = 0.0  # the wall clock, in seconds
        self._busy: dict[object, int] = {}
        self._depth: dict[greenlet, int] = {}

    def run(self, process: Process, name: str, step: Callable[[], object], fate: Fate) -> None:
        """Begin a step of a process, or go on with it."""
        if process.dead or process.stopped:
            return
        process.steps.setdefault(name, greenlet(step))
        process.plan(fate)
        self._go_on(process, name)
        process.heal()
        if process.dead:
            process.kill()

    def finish(self, process: Process) -> None:
        """Go on with all steps until they end."""
        for _ in range(_LIMIT):
            if process.dead or process.stopped or not process.steps:
                return
            for name in list(process.steps):
                if not process.stopped:
                    self._go_on(process, name)
        raise AssertionError(f"{process.steps} do not end")

    def _go_on(self, process: Process, name: str) -> None:
        with self.running(process):
            process.steps[name].switch()
        if process.steps[name].dead:
            del process.steps[name]

    @contextlib.contextmanager
    def running(self, process: Process) -> Iterator[None]:
        """Let a process run; its owner puts in place what all of its processes remember."""
        self.current = process
        process.owner.remember()
        try:
            yield
        finally:
            self.current = None

    def depth(self, step: greenlet) -> int:
        """Return how many pieces of work a step has in threads: one inside the other."""
        return self._depth.get(step, 0)

    def __enter__(self) -> None:
        kernel = self

        def run(pool: object, work: Callable[..., T], *args: object) -> T:
            size = getattr(pool, "size", 1)
            process, step = kernel.current, getcurrent()
            if process is None:
                return work(*args)
            while kernel._busy.get(pool, 0) >= size:
                process.leave()
            kernel._busy[pool] = kernel._busy.get(pool, 0) + 1
            kernel._depth[step] = kernel.depth(step) + 1
            try:
                return work(*args)
            finally:
                kernel._busy[pool] -= 1
                kernel._depth[step] -= 1

        def clock(*_: object) -> float:
            return kernel.now

        def wall_clock() -> float:
            return kernel.now + kernel.wrong_by

        def sleep(seconds: float = 0) -> None:
            if seconds:
                raise EndOfTurn

        with contextlib.ExitStack() as patches:
            for patch in (
                mock.patch.multiple(os, **self._operations(os, *CHANGES, *_WATCHED)),
                mock.patch.multiple(fcntl, **self._operations(fcntl, "flock")),
                mock.patch.multiple(
                    Offload, __init__=lambda pool, size: setattr(pool, "size", size), run=run
                ),
                mock.patch.object(SerialExecutor, "run", run),
                mock.patch.object(replayer, "Pool", _InTurn),
                mock.patch.object(gevent, "sleep", sleep),
                mock.patch.object(time, "time", wall_clock),
                mock.patch.object(time, "monotonic", clock),
                mock.patch.object(time, "clock_gettime", clock),
                mock.patch.object(time, "thread_time", clock),
            ):
                patches.enter_context(patch)
            self._patches = patches.pop_all()
        # a generator that is thrown away at any moment would close its file as another process
        gc.freeze()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()
        gc.unfreeze()
        self._patches.close()

    def _operations(self, module: Any, *names: str) -> Any:
        def operation(name: str) -> Callable[..., Any]:
            real = getattr(module, name)
            REAL.setdefault(name, real)

            def operate(*args: Any, **kwargs: Any) -> Any:
                process = self.current
                return process.operate(name, *args, **kwargs) if process else real(*args, **kwargs)

            return operate

        return {name: operation(name) for name in names}


class _InTurn:
    """A pool of greenlets that does one piece after the other."""

    def __init__(self, _: int) -> None:
        pass

    @staticmethod
    def map(work: Callable[[Any], Any], pieces: list[Any]) -> list[Any]:
        return [work(piece) for piece in pieces]


def end_turn(_: float) -> None:
    """Wait for the next turn, in a loop that ``turn`` runs."""
    raise EndOfTurn


def turn(loop: Callable[..., object], *args: object) -> Callable[[], None]:
    """Return a step that runs a loop until it waits."""

    def step() -> None:
        with contextlib.suppress(EndOfTurn):
            loop(*args)

    return step
