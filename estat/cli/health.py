"""Ask the running server whether it works.

It asks /health at HTTP_ADDR, so a container's health check needs no shell,
no curl and no address. Exit status: 0 if the server works, else 1.

Example: HTTP_ADDR=127.0.0.1:8080 estat health
"""

# It runs every few seconds beside the server, so it imports little.

import argparse
import sys
from http.client import HTTPConnection, HTTPException

from estat.cli.output import complain
from estat.config import loading, parsers
from estat.errors import SettingsError

_TIMEOUT_SECONDS = 4.0


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
    host, _, port = parsers.reachable(address).rpartition(":")
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=_TIMEOUT_SECONDS)
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
