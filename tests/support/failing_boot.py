"""gunicorn's configuration file for workers that can't boot: the production one, and

BOOT_FAILS   a file; while it is there, each new worker comes to the end that is named in it:
             "error", "status", "killed"
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from estat.gunicorn_conf import *  # noqa: F403

# isort: split
from estat.server import hooks


def post_worker_init(worker: Any) -> None:
    """End here, if told so, or boot."""
    ending = Path(os.environ["BOOT_FAILS"])
    if ending.exists():
        match ending.read_text():
            case "error":
                raise RuntimeError("as asked for")
            case "status":
                sys.exit(4)
            case _:
                os.kill(os.getpid(), signal.SIGKILL)
    hooks.post_worker_init(worker)
