"""Structured logs on standard error: one JSON object a line, or lines for people.

Modules log the name of what happened, and its facts in ``extra``. There is a line for each
start, stop, outage, recovery and class of refusals, never for a single event.
"""

import logging
import sys
import time
from typing import Any

import structlog

_BEFORE: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

#: These log much at debug, and nothing that an operator needs.
_QUIET = ("boto3", "botocore", "urllib3", "s3transfer")


def configure(level: str, form: str) -> None:
    """Send all logs of this process to standard error, as ``json`` or ``console``."""
    renderer: Any = structlog.processors.JSONRenderer()
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_BEFORE,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class Seldom:
    """Logs a kind of line at most once a minute, with the number of lines that it left out."""

    _SECONDS = 60.0

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, event: str, kind: str, **facts: object) -> None:
        """Log ``event`` with ``kind`` as its reason, unless it did so within the last minute."""
        if self._is_due(kind):
            left_out = self._left_out.pop(kind, 0)
            self._log.warning(event, extra={"reason": kind, "left_out": left_out, **facts})

    def exception(self, event: str, error: BaseException | None = None) -> None:
        """Log ``event`` with a traceback, unless it did so within the last minute.

        It is that of ``error``, or of what is being handled.
        """
        if self._is_due(event):
            left_out = self._left_out.pop(event, 0)
            self._log.error(event, exc_info=error or True, extra={"left_out": left_out})

    def _is_due(self, kind: str) -> bool:
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._next[kind] = now + self._SECONDS
        return True
