"""gunicorn's own log lines, in the format of ours; its access log stays off unless asked for."""

import logging
import re
from typing import Any

from gunicorn.glogging import Logger

from estat import lifecycle

# all that could be an address, or part of one; a time of day may go with it
_ADDRESS = re.compile(r"(?:[0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f.]*|[0-9]{1,3}(?:\.[0-9]{1,3}){3}")


class StructuredLogger(Logger):
    """Passes gunicorn's error log on to the root logger that ``log`` has set up."""

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, then take its own handler off the error log."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.filters[:] = [_hide_addresses]
        self.error_log.propagate = True


def _hide_addresses(record: logging.LogRecord) -> bool:
    """Take clients' addresses out of a line where they are not to be kept (IP_MODE)."""
    # lines of the level info are about the server itself
    if record.levelno != logging.INFO and lifecycle.settings().ip_mode != "full":
        record.msg, record.args = _ADDRESS.sub("(hidden)", record.getMessage()), ()
    return True
