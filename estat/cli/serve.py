"""Start the server.

Its settings are environment variables, or lines of a file .env in the
working directory: see docs/configuration.md. It checks them, then becomes
gunicorn. Exit status: 0 after a stop that lost nothing, 1 if something was
lost or it can't listen, 2 for a wrong setting, 3 for a wrong start.

Example: RAW_BUCKET=file:./data DLQ_DIR=./data/dlq estat serve
"""

import argparse
import os
import sys

from estat.config import loading


def run(_args: argparse.Namespace) -> int:
    """Replace this process by gunicorn. Raises SettingsError."""
    loading.load()
    return become_gunicorn("estat.wsgi:app")


def become_gunicorn(application: str) -> int:
    """Replace this process by gunicorn."""
    # the console script if there is one: under "python -m" gunicorn can't re-execute itself
    script = os.path.join(os.path.dirname(sys.executable), "gunicorn")
    gunicorn = [script] if os.path.exists(script) else [sys.executable, "-m", "gunicorn"]
    for stream in filter(None, (sys.stdout, sys.stderr)):  # else it was closed before
        stream.flush()
    arguments = [*gunicorn, "-c", "python:estat.gunicorn_conf", application]
    return os.execv(arguments[0], arguments)  # noqa: S606 - no shell
