"""What commands print, in one place: nothing else in this package writes to a terminal.

Much of it was written by others: keys, file names, a server's or a store's words. So every line
is escaped, and holds no secret (see ``text``). On a terminal a line of progress stands below
what is printed; what is printed next takes its place.
"""

import json
import logging
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from estat.errors import EstatError
from estat.text import safe, shown

#: The shortest time between two drawings of the progress: nobody can read faster.
_REDRAW_SECONDS = 0.1

_CLEAR = "\r\x1b[K"


class CommandError(EstatError):
    """A command can't do what was asked; ``code`` is its exit status."""

    def __init__(self, *problems: str, code: int = 2) -> None:
        super().__init__(*problems)
        self.problems = problems
        self.code = code


def say(*lines: str) -> None:
    """Print lines."""
    _write(sys.stdout, "".join(f"{safe(line)}\n" for line in lines))


def say_json(value: object) -> None:
    """Print a value as JSON in ASCII, as it is: secrets are the caller's to hide."""
    _write(sys.stdout, f"{json.dumps(value)}\n")


def say_event(line: str) -> None:
    """Print a line of JSON, with control characters escaped."""
    # controls stand between tokens only; all else that is odd is part of a string
    odd = {char for char in line if not char.isprintable()}
    table = {ord(char): json.dumps(char)[1:-1] if char > "\x1f" else " " for char in odd}
    _write(sys.stdout, line.translate(table).strip() + "\n")


def complain(command: str, problem: EstatError | str) -> None:
    """Print a command's problems on standard error; without its name, the server's."""
    problems = getattr(problem, "problems", [str(problem)])
    name = f"estat {command}".rstrip()
    _write(sys.stderr, "".join(f"{name}: {safe(text)}\n" for text in problems))


def be_careful(command: str) -> None:
    """Let a command's crash, and what libraries warn of, be printed like everything else."""

    def tell(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        lines = "".join(traceback.format_exception(kind, error, at)).splitlines()
        _write(sys.stderr, "".join(f"{safe(line)}\n" for line in lines))

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complain(command, record.getMessage())

    sys.excepthook = tell
    logging.lastResort = Told(logging.WARNING)


class Progress:
    """A line on a terminal that tells how far a command is; elsewhere it draws nothing.

    It has no thread: ``update`` draws, as often as anybody can read.
    """

    def __init__(self) -> None:
        self._drawn_at: float | None = None

    def update(self, done: int, total: int | None, text: Callable[[], str]) -> None:
        """Draw if it is time to; only then ``text`` is called.

        ``total`` is in any unit (bytes, events). If it is 0 or None, the text stands alone.
        """
        now = time.monotonic()
        if self._drawn_at is not None and now - self._drawn_at < _REDRAW_SECONDS:
            return
        if sys.stderr.isatty():
            self._drawn_at = now
            share = f"{min(done / total, 1.0):4.0%} " if total else ""
            # one column less: a full last column makes some terminals wrap
            columns = shutil.get_terminal_size().columns - 1
            sys.stderr.write(_CLEAR + shown(share + text())[:columns])
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn_at is not None:
            self._drawn_at = None
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()


#: That of this process.
progress = Progress()


def _write(stream: TextIO, text: str) -> None:
    progress.clear()
    if stream is sys.stderr:
        sys.stdout.flush()  # what was printed before stands before
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
