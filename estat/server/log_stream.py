"""Standard error and output that make nobody wait, whether they are read or not.

    write() -> queue, bounded by bytes -> one native thread -> the file descriptor

Whoever writes to a pipe that is full stands still until it is read. With gevent that is all
requests of a worker, and in the arbiter the stop of the server. So each process of the
server hands its lines over to a thread.

- Lines that do not fit the queue are dropped and counted (``log_lines_dropped_total``), and so are
  those that the descriptor refuses.
- The descriptor stays blocking: other processes share it.
- A thread does not live on in a forked process, but the locks of libraries that it holds do. So it
  ends before a fork, unless nobody reads. The child begins with an empty queue and a thread of its
  own; its parent writes what had waited.
- At its end a process waits for its queue, but not for long.

Everything that Python code prints goes this way: logs, gunicorn's own words, tracebacks.
"""

import atexit
import io
import os
import sys
import time
from typing import Any, TextIO, cast

from gevent import monkey

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import Row

#: Bytes of lines that wait in one process: some 3,000 lines.
_QUEUED_BYTES = 1024 * 1024

#: How long a process waits at its end until its lines are written.
_END_SECONDS = 1.0
_POLL_SECONDS = 0.001

_STDERR = 2

# gevent's own would call the event loop
_start_thread = monkey.get_original("_thread", "start_new_thread")
_new_lock = monkey.get_original("_thread", "RLock")
_new_queue = monkey.get_original("queue", "SimpleQueue")
_select = monkey.get_original("select", "select")


class LogStream(io.TextIOBase):
    """A text stream that a thread of its own writes to a file descriptor, in order."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._begin()
        os.register_at_fork(before=self._end_thread, after_in_child=self._begin)
        atexit.register(self.drain)

    def _begin(self) -> None:
        self._lock: Any = _new_lock()
        self._lines: Any = _new_queue()
        self._has_thread = False
        self._queued_bytes = self._done_bytes = 0  # since the process began
        self._stuck = False  # a wait for the end was in vain
        self._dropped = 0
        self._counts: Metrics | None = None

    def write(self, text: str) -> int:
        """Hand a text over, mostly a line; return its length in characters. Never waits."""
        with self._lock:
            self._put(text.encode(errors="backslashreplace"))
        return len(text)

    def count_in(self, row: Row) -> None:
        """Count dropped lines in a row of the shared page, with those that were dropped before.

        A second call, of a reload, does nothing: a process has one row.
        """
        with self._lock:
            if self._counts:
                return
            self._counts = Metrics(row)
            self._counts.count(metrics.LOG_DROPPED, self._dropped)

    def drain(self) -> bool:
        """Wait a little until all lines are written, and tell whether they are.

        Where that was in vain once, it does not wait again.
        """
        until = time.monotonic() + (0.0 if self._stuck else _END_SECONDS)
        while self._done_bytes < self._queued_bytes and time.monotonic() < until:
            _select([], [], [], _POLL_SECONDS)
        self._stuck = self._done_bytes < self._queued_bytes
        return not self._stuck

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether a person reads this."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Tell that this can be written to."""
        return True

    def _end_thread(self) -> None:
        """End the thread, if it is not held up: a lock that it holds is never freed in a child.

        The next line starts another one.
        """
        if self._has_thread and self.drain():
            self._lines.put(None)
            while self._has_thread:
                _select([], [], [], _POLL_SECONDS)

    def _put(self, lines: bytes) -> None:
        if self._queued_bytes - self._done_bytes + len(lines) > _QUEUED_BYTES:
            self._drop(lines)
            return
        self._queued_bytes += len(lines)
        if not self._has_thread:
            try:
                _start_thread(self._run, (self._lines,))
            except RuntimeError:  # the host has no thread left: as if there were no queue
                self._write(lines)
                return
            self._has_thread = True
        self._lines.put(lines)

    def _run(self, queue: Any) -> None:
        try:
            while (lines := queue.get()) is not None:
                self._write(lines)
        finally:
            self._has_thread = False  # out of memory, say: the next line starts another one

    def _write(self, lines: bytes) -> None:
        rest = lines
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                _select([], [self._descriptor], [])  # somebody else has made it non-blocking
            except (OSError, MemoryError):  # its reader has gone, say
                with self._lock:
                    self._drop(rest)
                break
        self._done_bytes += len(lines)

    def _drop(self, lines: bytes) -> None:
        number = lines.count(b"\n")
        self._dropped += number
        if self._counts:
            self._counts.count(metrics.LOG_DROPPED, number)


_installed: list[LogStream] = []  # for standard output and error


def install() -> None:
    """Put such streams in the place of this process's own; a second call does nothing.

    One that the process was started without leads nowhere.
    """
    if _installed:
        return
    nowhere = _fill_gaps()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    # without a stream, its number may by now be that of some other file
    sys.stdout = LogStream(1 if sys.stdout else nowhere)
    sys.stderr = LogStream(2 if sys.stderr else nowhere)
    _installed.extend((sys.stdout, sys.stderr))


def stderr() -> TextIO:
    """Return the stream of the log, whatever stands for standard error by now."""
    return cast("TextIO", _installed[1]) if _installed else sys.stderr


def _fill_gaps() -> int:
    """Open /dev/null wherever one of the first three descriptors is closed, and once more.

    Else the next file to be opened, a journal say, has the number that libraries write to.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    return descriptor


def count_in(row: Row) -> None:
    """Count what this process drops in its row of the shared page."""
    for stream in _installed:
        stream.count_in(row)


def drain() -> bool:
    """Wait a little until all lines are written, and tell whether they are."""
    written = [stream.drain() for stream in _installed]  # each gets its time
    return all(written)
