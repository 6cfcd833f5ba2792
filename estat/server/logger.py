"""What others have to say, as log lines of the server's: gunicorn, and gevent's event loop.

gunicorn's access log is off by default.
"""

import errno
import logging
import re
from typing import Any

from gevent.hub import get_hub
from gevent.server import StreamServer
from gunicorn.glogging import Logger

from estat.config.parsers import CREDENTIALS
from estat.log import Seldom
from estat.server import inherited
from estat.text import safe
from estat.web.environ import environ_key

# whatever may be an address or part of one; a time of day looks like one, and is hidden too
_ADDRESS = re.compile(r"(?:[0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f.]*|[0-9]{1,3}(?:\.[0-9]{1,3}){3}")

# with "Invalid HTTP Header: 'x'", say, and the repr of what was read before a client left
_QUOTED = re.compile(
    r"(?s)((?:Invalid request from ip=|Ignored premature client disconnection)[^'\"]*?)b?['\"].*"
)

_ACCESS_CHARS = 8192

#: What accept(2) says where this process, or the host, has no room for another connection.
_HOST_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_seldom = Seldom(logging.getLogger(__name__))


class StructuredLogger(Logger):
    """Passes gunicorn's error log on to the root logger that ``log`` has set up."""

    def setup(self, cfg: Any) -> None:
        """Set up as gunicorn does, then take its own handler off the error log."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.filters[:] = [_hide]
        self.error_log.propagate = True
        self.access_log.filters[:] = [_hide_in_access]

    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
        """Return the values that an access log's line may have, without write keys."""
        atoms: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        for name in CREDENTIALS:
            for atom in (f"{{{name}}}i", f"{{{environ_key(name).lower()}}}e"):
                if atom in atoms:
                    atoms[atom] = "(hidden)"
        if atoms["u"] != "-":
            atoms["u"] = "(hidden)"  # of Basic credentials the user may be the key
        return atoms


def report_failures() -> None:
    """Log what fails in a greenlet, or in a callback of the event loop, as one line.

    gevent itself would print a traceback, and with it what the greenlet was called with: a client's
    address, say.
    """
    hub: Any = get_hub()
    hub.print_exception = _report


def _report(context: object, _kind: Any, error: BaseException, _traceback: Any) -> None:
    if isinstance(context, StreamServer) and getattr(error, "errno", None) in _HOST_LIMITS:
        # gevent tries again by itself, after a pause of up to a second
        _seldom.warning("connection_not_accepted", str(error))
    else:
        _seldom.exception("unexpected_error", error)


def _hide(record: logging.LogRecord) -> bool:
    """Leave out what gunicorn quotes of a request that it can't read (a log filter).

    Nobody knows where in it a key is. Clients' addresses are hidden unless IP_MODE is ``full``.
    """
    text = _QUOTED.sub(r"\1(not shown)", record.getMessage())
    # lines of level info name only the server's own addresses
    if record.levelno != logging.INFO and inherited.settings().ip_mode != "full":
        text = _ADDRESS.sub("(hidden)", text)
    record.msg, record.args = text, None
    return True


def _hide_in_access(record: logging.LogRecord) -> bool:
    record.msg, record.args = safe(record.getMessage(), _ACCESS_CHARS), None
    return True
