"""gunicorn's own log lines in the format of the server's; the access log is off by default."""

import logging
import re
from typing import Any

from gunicorn.glogging import Logger

from estat.config.parsers import CREDENTIALS
from estat.server import inherited
from estat.web.environ import environ_key
from estat.web.write_keys import hidden

# whatever may be an address or part of one; a time of day looks like one, and is hidden too
_ADDRESS = re.compile(r"(?:[0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f.]*|[0-9]{1,3}(?:\.[0-9]{1,3}){3}")


class StructuredLogger(Logger):
    """Passes gunicorn's error log on to the root logger that ``log`` has set up."""

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, then take its own handler off the error log."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.filters[:] = [_hide]
        self.error_log.propagate = True

    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
        """Return the values that an access log's line may have, without write keys."""
        atoms = super().atoms(resp, req, environ, request_time)
        for name in CREDENTIALS:
            for atom in (f"{{{name}}}i", f"{{{environ_key(name).lower()}}}e"):
                if atom in atoms:
                    atoms[atom] = "(hidden)"
        return {
            name: hidden(value) if isinstance(value, str) else value
            for name, value in atoms.items()
        }


def _hide(record: logging.LogRecord) -> bool:
    """Hide secrets in what gunicorn quotes of a request that it can't read (a log filter).

    Write keys are always hidden; clients' addresses are unless IP_MODE is ``full``.
    """
    text = hidden(record.getMessage())
    # lines of level info name only the server's own addresses
    if record.levelno != logging.INFO and inherited.settings().ip_mode != "full":
        text = _ADDRESS.sub("(hidden)", text)
    record.msg, record.args = text, None
    return True
