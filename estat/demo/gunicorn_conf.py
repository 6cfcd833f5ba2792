"""gunicorn's configuration file as ``estat demo`` uses it."""

from gevent import monkey

monkey.patch_all()  # before anything that imports ssl, sockets or threads

import os
import shutil
from typing import Any

from estat.demo import TEMPORARY
from estat.server import hooks, inherited

globals().update(hooks.gunicorn_config())


def on_exit(server: Any) -> None:
    """Log the accounting; remove a directory that was made for this run."""
    hooks.on_exit(server)
    directory = inherited.settings().raw_bucket.removeprefix("file:")
    if os.path.exists(os.path.join(directory, TEMPORARY)):
        shutil.rmtree(directory, ignore_errors=True)
