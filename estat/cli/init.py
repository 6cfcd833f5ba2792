"""Write example settings, and files for gunicorn, systemd, Prometheus and Grafana.

A server that was installed as a package needs no other files. Files that are
there are never overwritten.

Example: estat init /srv/estat
"""

import argparse
import os
import shlex
import shutil

from estat.cli.output import CommandError, say

_SOURCE = os.path.join(os.path.dirname(__file__), "init_files")

_FILES = {
    ".env.example": "every setting with its default",
    "gunicorn.conf.py": "gunicorn's configuration; its own settings can be added",
    "estat.service": "a unit for systemd",
    "alerts.yml": "alert rules for Prometheus",
    "dashboard.json": "a dashboard for Grafana",
}

_NEXT = (
    "  cp .env.example .env    and set RAW_BUCKET in it",
    "  estat check             tells what is wrong with settings, disk and bucket",
    "  estat serve             or: gunicorn -c gunicorn.conf.py estat.wsgi:app",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments."""
    parser.add_argument(
        "dir", metavar="DIR", nargs="?", default=".", help="write them in DIR [%(default)s]"
    )


def run(args: argparse.Namespace) -> int:
    """Write all files, or none: raises CommandError if one is there or can't be written."""
    path, written = args.dir, []
    try:
        os.makedirs(path, exist_ok=True)
        for name in _FILES:
            path = os.path.join(args.dir, name)
            with open(os.path.join(_SOURCE, name), "rb") as source, open(path, "xb") as file:
                written.append(path)
                shutil.copyfileobj(source, file)
    except OSError as exc:
        for each in written:
            os.unlink(each)
        raise CommandError(f"{path}: {exc.strerror}; nothing was written") from exc
    say(f"Wrote in {os.path.abspath(args.dir)}:")
    say(*(f"  {name:<18}{what}" for name, what in _FILES.items()))
    say("", "Next:", *([] if args.dir == "." else [f"  cd {shlex.quote(args.dir)}"]), *_NEXT)
    return 0
