"""Structured logs on standard error: one JSON object a line, or lines for people.

Modules log the name of what happened, and its facts in ``extra``. There is a line for each
start, stop, outage, recovery and class of refusals, never for a single event.

Lines may hold a library's or a client's words. So secrets are hidden and control characters are
escaped (see ``text``), lines are cut at a length, and lines of one kind are limited in rate.
What Python code prints on standard error, warnings and tracebacks become such lines as well.
"""

import io
import json
import logging
import math
import sys
import threading
import time
from collections.abc import Hashable
from datetime import UTC, datetime
from typing import Any, TextIO

from estat.text import hidden, safe, shown

#: What is left of a text; of a traceback its beginning and, for the error, more of its end.
_TEXT_CHARS, _TRACEBACK_CHARS = 1000, 4000
_LOOKED_AT_CHARS = 16 * 1024

#: Of a line that is longer all facts are left out. Only many or foreign ones can make it so.
_LINE_CHARS = 32 * 1024

#: What a record has beside the facts that were given with it.
_NO_FACTS = {*vars(logging.makeLogRecord({})), "message", "taskName"}

#: Lines of a kind in a minute, and kinds that are known at a time.
_LINES, _SECONDS, _KINDS = 60, 60.0, 1000

#: These log much at debug, and nothing that an operator needs.
_QUIET = ("boto3", "botocore", "urllib3", "s3transfer")

logger = logging.getLogger(__name__)


def configure(level: str, form: str, stream: TextIO) -> None:
    """Send all logs of this process to a stream, as ``json`` or ``console``.

    With them goes what is printed on standard error from now on, a line of it in a log line.
    """
    handler = _Handler(stream)
    handler.setFormatter(_Formatter(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _report
    sys.unraisablehook = lambda failed: _report(None, failed.exc_value, failed.exc_traceback)
    threading.excepthook = lambda failed: _report(None, failed.exc_value, failed.exc_traceback)
    sys.stderr = _Printed(stream)


def _report(_kind: Any, error: BaseException | None, _traceback: Any) -> None:
    logger.error("unexpected_error", exc_info=error)


class _Handler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._budget = _Budget(_LINES)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep so many lines of a kind: others' is the line of code, ours the event's name, too."""
        event = record.msg if record.name.startswith("estat") else ""
        left_out = self._budget.take((record.name, record.lineno, str(event)))
        if left_out:
            record.left_out = getattr(record, "left_out", 0) + left_out
        return left_out is not None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Tell that a line can't be written as it was to be; with what, might be the fault."""
        failed = logging.LogRecord(
            record.name, record.levelno, "", 0, "line_not_written", None, None
        )
        self.stream.write(self.format(failed) + self.terminator)


class _Printed(io.TextIOBase):
    """Makes a log line of each line that is printed."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._begun = ""

    def write(self, text: str) -> int:
        """Log the lines that end in ``text``; return its length in characters."""
        *lines, begun = (self._begun + text).split("\n")
        self._begun = begun[-_LOOKED_AT_CHARS:]
        for line in lines:
            if not line.isspace() and line:
                logger.warning("printed", extra={"text": line})
        return len(text)

    def fileno(self) -> int:
        """Return the descriptor of standard error."""
        return self._stream.fileno()


class _Formatter(logging.Formatter):
    def __init__(self, form: str) -> None:
        super().__init__()
        self._for_people = form == "console"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; in JSON the facts stand beside its event."""
        known = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        }
        facts = {name: value for name, value in vars(record).items() if name not in _NO_FACTS}
        known, facts = _cleaned(known), _cleaned(facts)
        if record.exc_info:
            text = hidden(_ends_of(self.formatException(record.exc_info), _LOOKED_AT_CHARS))
            lines = "\n".join(map(shown, text.split("\n")))
            known["exception"] = _ends_of(lines, _TRACEBACK_CHARS)
        line = self._line(known, facts)
        return line if len(line) <= _LINE_CHARS else self._line(known, {"cut": len(line)})

    def _line(self, known: dict[str, Any], facts: dict[str, Any]) -> str:
        if not self._for_people:
            return json.dumps(known | facts)
        traceback = f"\n{known['exception']}" if "exception" in known else ""
        told = "".join(f" {name}={value}" for name, value in facts.items())
        start = f"{known['timestamp'][:19]}Z {known['level']:<8} {known['event']}"
        return f"{start}{told}{traceback}"


def _ends_of(text: str, chars: int) -> str:
    if len(text) <= chars:
        return text
    return f"{text[: chars // 4]}\n…\n{text[-3 * chars // 4 :]}"


def _cleaned(value: Any) -> Any:
    match value:
        case dict():
            return {_cleaned(str(name)): _cleaned(inner) for name, inner in value.items()}
        case list() | tuple() | set():
            return [_cleaned(inner) for inner in value]
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
    return safe(str(value)[:_LOOKED_AT_CHARS], _TEXT_CHARS)


class _Budget:
    """Lets so many lines of a kind pass in a minute."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        #: Of each kind the end of its minute, how many passed in it, and were left out since.
        self._kinds: dict[Hashable, tuple[float, int, int]] = {}

    def take(self, kind: Hashable) -> int | None:
        """Return how many were left out before this line; None if it is left out, too."""
        now = time.monotonic()
        until, passed, left_out = self._kinds.get(kind, (now, 0, 0))
        if now >= until:
            until, passed = now + _SECONDS, 0
        if passed >= self._lines:
            self._kinds[kind] = until, passed, left_out + 1
            return None
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        self._kinds[kind] = until, passed + 1, 0
        return left_out


class Seldom:
    """Logs a kind of line at most once a minute, with the number of lines that it left out."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._budget = _Budget(1)

    def warning(self, event: str, kind: str, **facts: object) -> None:
        """Log ``event`` with ``kind`` as its reason, unless it did so within the last minute."""
        left_out = self._budget.take(kind)
        if left_out is not None:
            self._log.warning(event, extra={"reason": kind, "left_out": left_out, **facts})

    def exception(self, event: str, error: BaseException | None = None) -> None:
        """Log ``event`` with a traceback, unless it did so within the last minute.

        It is that of ``error``, or of what is being handled.
        """
        left_out = self._budget.take(event)
        if left_out is not None:
            self._log.error(event, exc_info=error or True, extra={"left_out": left_out})
