"""``estat serve``: checks the settings, then becomes gunicorn."""

import argparse
import os
import shutil
import sys
from typing import Any

from estat import config
from estat.errors import SettingsError


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("serve", help="start the server")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replace this process by gunicorn; return 2 when the settings are bad."""
    del args
    try:
        config.load()
    except SettingsError as exc:
        for problem in exc.problems:
            sys.stderr.write(f"estat: {problem}\n")
        return 2
    # the console script, not "python -m gunicorn", which breaks SIGUSR2
    beside = os.path.join(os.path.dirname(sys.executable), "gunicorn")
    gunicorn = beside if os.path.exists(beside) else shutil.which("gunicorn")
    if gunicorn is None:
        sys.stderr.write("estat: gunicorn's console script is not on the PATH\n")
        return 2
    configuration = os.path.join(os.path.dirname(config.__file__), "gunicorn_conf.py")
    sys.stderr.flush()
    arguments = [gunicorn, "-c", configuration, "estat.wsgi:app"]
    return os.execv(gunicorn, arguments)  # noqa: S606 - no shell
