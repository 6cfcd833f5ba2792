"""gunicorn's configuration file for a worker that takes long to be born: the production one, and

SLOW_AGE     the worker of this age stays as it was forked, with the arbiter's handlers,
SLOW_UNTIL   until this file is there, or SIGTERM has ended in its copy of the arbiter's queue;
SLOW_PID     a file that it writes its pid to when it begins to wait
"""

import contextlib
import os
import queue
import signal
import time
from pathlib import Path
from typing import Any

from estat.gunicorn_conf import *  # noqa: F403

# isort: split
from estat.server import hooks


def post_fork(server: Any, worker: Any) -> None:
    """Stay in the moment between the fork and the worker's own handlers."""
    hooks.post_fork(server, worker)
    if worker.age == int(os.environ["SLOW_AGE"]):
        Path(os.environ["SLOW_PID"]).write_text(f"{os.getpid()}\n")
        until = Path(os.environ["SLOW_UNTIL"])
        while not until.exists() and not _got_sigterm(server):
            time.sleep(0.01)


def _got_sigterm(server: Any) -> bool:
    with contextlib.suppress(queue.Empty):
        return server.SIG_QUEUE.get_nowait() == signal.SIGTERM
    return False
