"""Starts a contender's server, waits until it serves, checks its answers, stops it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from typing import NamedTuple

from bench.contenders import Contender, Server
from bench.errors import BenchError

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 10.0
#: Longer than SHUTDOWN_TIMEOUT's default: a drain that works is never cut off.
_STOP_SECONDS = 30.0

#: What servers see of this process's environment. No more: a setting of estat or
#: gunicorn that happens to be exported would change what is measured.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV")


class Running(NamedTuple):
    """A server that serves."""

    pid: int
    port: int


@contextlib.contextmanager
def running(server: Server, directory: str) -> Iterator[Running]:
    """Run a server in an empty directory of its own. Raises BenchError if it does not start."""
    port = _free_port()
    names = {
        "port": port, "directory": directory, "root": _ROOT,
        "bin": sysconfig.get_path("scripts"), "python": sys.executable,
    }  # fmt: skip
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environ["PYTHONPATH"] = _ROOT
    environ |= {name: value.format(**names) for name, value in server.environ.items()}
    log_path = os.path.join(directory, "server.log")
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [part.format(**names) for part in server.command],
            # away from the repository, whose .env would be read
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the benchmark, which stops its servers itself
            start_new_session=True,
        )
    try:
        _await(server, process, port, log_path)
        yield Running(process.pid, port)
        if process.poll() is not None:
            # whoever sent it load has noticed; the figures of the others stand
            print(f"{server.name} ended during the run:\n{_tail(log_path)}", file=sys.stderr)
    finally:
        _stop(server, process, log_path)


def check(contender: Contender, port: int, contents: list[bytes]) -> int:
    """Send each request once, look at each answer, and return how many were refused with 503.

    It warms the server up, and it is what makes events of wrk's counts: wrk sees
    a status, not how many events were accepted. Raises BenchError at the first
    answer that is neither a refusal nor an acceptance of every event.
    """
    wanted = contender.events_per_request
    refused = 0
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as connection:
            for content in contents:
                connection.sendall(content)
                answer = http.client.HTTPResponse(connection, method="POST")
                answer.begin()
                body = answer.read()
                if answer.status == 503:
                    refused += 1
                elif answer.status != 202 or json.loads(body).get("accepted") != wanted:
                    raise BenchError(
                        f"{contender.name}: a request of {wanted} events was answered "
                        f"{answer.status} {body[:300]!r}"
                    )
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise BenchError(f"{contender.name}: no answer that can be read: {exc!r}") from exc
    return refused


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _await(server: Server, process: "subprocess.Popen[bytes]", port: int, log_path: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _serves(port, server.ready_path):
        if process.poll() is not None:
            raise BenchError(f"{server.name} did not start:\n{_tail(log_path)}")
        if time.monotonic() > deadline:
            raise BenchError(
                f"{server.name} did not serve within {_START_SECONDS:g}s:\n{_tail(log_path)}"
            )
        time.sleep(_POLL_SECONDS)


def _serves(port: int, path: str | None) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.connect()
        if path is None:
            return True
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(server: Server, process: "subprocess.Popen[bytes]", log_path: str) -> None:
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(_STOP_SECONDS)
            if process.returncode:
                # a worker that lost events says so by its exit status; the figures stand
                print(
                    f"{server.name} exited {process.returncode}:\n{_tail(log_path)}",
                    file=sys.stderr,
                )
    except subprocess.TimeoutExpired:
        print(f"{server.name} did not stop within {_STOP_SECONDS:g}s; killed", file=sys.stderr)
    finally:
        # whatever is left of it, also when a second Ctrl-C ended the wait
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(path: str) -> str:
    with open(path, errors="replace") as file:
        return "".join(file.readlines()[-20:])
