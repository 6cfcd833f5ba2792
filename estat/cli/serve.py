"""``estat serve``: checks the settings, then becomes gunicorn."""

import argparse
import os
import sys
from typing import Any

from estat.config import loading


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("serve", help="start the server")
    parser.set_defaults(run=run)


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
