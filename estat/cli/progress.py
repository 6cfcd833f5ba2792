"""A line of progress on a terminal.

It draws on one line, and only if the stream is a terminal: else every method does nothing,
so that callers needn't ask. It limits the rate of drawing, so ``update`` may be called as
often as convenient. It has no thread: the caller's thread draws.
"""

import shutil
import time
from collections.abc import Callable
from typing import TextIO

#: The shortest time between two drawings: nobody can read faster.
_REDRAW_SECONDS = 0.1

_CLEAR = "\r\x1b[K"


class ProgressBar:
    """Shows how much of a whole is done, and a line of text beside it."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown = stream.isatty()
        self._drawn_at: float | None = None

    def update(self, done: int, total: int | None, text: Callable[[], str]) -> None:
        """Draw if it is time to; only then ``text`` is called.

        ``total`` is in any unit (bytes, events). If it is 0 or None, the text stands alone.
        """
        if not self._shown:
            return
        now = self._clock()
        if self._drawn_at is not None and now - self._drawn_at < _REDRAW_SECONDS:
            return
        self._drawn_at = now
        share = f"{min(done / total, 1.0):4.0%} " if total else ""
        # one column less: a full last column makes some terminals wrap
        columns = shutil.get_terminal_size().columns - 1
        self._stream.write(_CLEAR + (share + text())[:columns])
        self._stream.flush()

    def close(self) -> None:
        """Take the bar away, so that what is written next begins on a clean line."""
        if self._drawn_at is not None:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._drawn_at = None
