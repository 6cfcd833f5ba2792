"""What the arbiter hands to its workers by fork: the shared page, the settings, a worker's slot.

gunicorn is told only the names of the worker class and of the WSGI module, so there is
no constructor that these could be passed to. The arbiter sets them here before it forks,
and each worker finds them in its copy of the memory.
"""

import logging
import os
from dataclasses import dataclass, replace
from functools import cache

from estat import log
from estat.accounting import metrics
from estat.accounting.shared_memory import SharedPage
from estat.config import loading
from estat.config.settings import Settings
from estat.disk.server_directory import NONE, SERVERS, ServerDirectory
from estat.errors import SettingsError
from estat.server import log_stream
from estat.server.launch import EARLY_LOAD, RUN, refuse

logger = logging.getLogger(__name__)

#: Settings that only a restart can change. gunicorn would open all listeners anew, fail on one
#: that its workers still hold, and end; and workers keep the directory that they have begun with.
_FIXED = (("HTTP_ADDR", "METRICS_ADDR"), ("DLQ_DIR",))


@dataclass
class _Inherited:
    """What this process knows so far."""

    given: Settings | None = None  # as the operator wrote them
    directory: ServerDirectory | None = None  # this server's, if it could be made
    slot: int | None = None  # in a worker


_here = _Inherited()


@cache
def page() -> SharedPage:
    """Return the page that all processes of this server share. The first call makes it."""
    return metrics.page()


def settings() -> Settings:
    """Return the settings in force: ``dlq_dir`` is this server's own directory in DLQ_DIR.

    Ends a process that gunicorn started without the configuration file.
    """
    directory = _here.directory
    path = directory.path if directory else os.path.join(os.path.realpath(dlq_dir()), SERVERS, NONE)
    return replace(_given(), dlq_dir=path)


def dlq_dir() -> str:
    """Return DLQ_DIR as the operator gave it."""
    return _given().dlq_dir


def _given() -> Settings:
    if _here.given is None:
        refuse(f"gunicorn was started without the server's configuration file; run: {RUN}")
    return _here.given


def slot() -> int:
    """Return this worker's row of the page. Ends a process that is no worker."""
    if _here.slot is None:
        refuse(
            f"{EARLY_LOAD}; leave out --preload (preload_app), --check-config and --print-config, "
            f"and run: {RUN}"
        )
    return _here.slot


def set_slot(number: int) -> None:
    """Make this process the worker of a slot."""
    _here.slot = number


def directory() -> ServerDirectory | None:
    """Return this server's own directory in DLQ_DIR, if it has one."""
    return _here.directory


def make_directory() -> ServerDirectory:
    """Give this server a directory of its own. Raises DiskError; it has none then."""
    _here.directory = None
    _here.directory = ServerDirectory.make(dlq_dir())
    return _here.directory


def load_settings() -> Settings:
    """Read the settings. If they are bad, exit 2 at start, and keep the old ones on a reload."""
    old = _here.given
    try:
        new = loading.load()
        if old:
            _check_reload(old, new)
    except SettingsError as exc:
        if old is None:
            refuse(*exc.problems, status=2)
        for problem in exc.problems:
            logger.error("reload_refused", extra={"problem": problem})
        new = old
    _here.given = new
    metrics.name_keys(key.name for key in new.write_keys)
    log.configure(new.log_level, new.log_format, log_stream.stderr())
    return settings()


def _check_reload(old: Settings, new: Settings) -> None:
    """Raise SettingsError if a setting changes that only a restart can change."""
    problems = [
        f"{' and '.join(names)} can't change on a reload: restart the server"
        for names in _FIXED
        if any(getattr(old, name.lower()) != getattr(new, name.lower()) for name in names)
    ]
    if problems:
        raise SettingsError(problems)
