"""``estat health``: asks a running server whether it works; made for a container's health check.

It asks ``/health`` at HTTP_ADDR and has the server's settings, so it needs no shell, no curl
and no address. It runs every few seconds beside the server, so it imports little:
``python3 -m estat.cli.health`` does the same without importing the other commands.
"""

import argparse
import sys
from http.client import HTTPConnection, HTTPException
from typing import Any

from estat.cli.output import complain
from estat.config import loading
from estat.errors import SettingsError

_TIMEOUT_SECONDS = 4.0

#: Where to ask a server that listens on every address.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("health", help="ask the running server whether it works")
    parser.set_defaults(run=run)


def run(_args: argparse.Namespace) -> int:
    """Return 0 if the server answers that it works, else 1, with the reason on standard error."""
    problem = ask()
    if problem:
        complain("", problem)
    return 1 if problem else 0


def ask() -> str:
    """Ask the server at HTTP_ADDR; return why it is not healthy, or nothing."""
    try:
        address = loading.http_addr()
    except SettingsError as exc:
        return exc.problems[0]
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    connection = HTTPConnection(_LOOPBACK.get(host, host), int(port), timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, HTTPException) as exc:
        return f"no answer from {address}: {exc or type(exc).__name__}"
    finally:
        connection.close()
    return "" if status == 200 else f"{address} answers {status}"


if __name__ == "__main__":
    sys.exit(run(argparse.Namespace()))
