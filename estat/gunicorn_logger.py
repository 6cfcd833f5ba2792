"""gunicorn's own log lines, in the format of ours; its access log stays off unless asked for."""

from typing import Any

from gunicorn.glogging import Logger


class StructuredLogger(Logger):
    """Passes gunicorn's error log on to the root logger that ``log`` has set up."""

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, then take its own handler off the error log."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
