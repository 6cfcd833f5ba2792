"""Starts a contender's server, checks its answers, reads its metrics, stops it."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from bench import BenchError, report, traffic
from bench.contenders import Contender

_Process = subprocess.Popen[bytes]

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 10.0
#: Longer than SHUTDOWN_TIMEOUT's default: a drain that works is never cut off.
_STOP_SECONDS = 30.0

#: What servers see of this process's environment. No more: a setting of estat or
#: gunicorn that happens to be exported would change what is measured.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV")


_SAMPLE = re.compile(r"^(\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


class Running(NamedTuple):
    """A server that serves."""

    pid: int
    port: int


class Serving(NamedTuple):
    """A server that is ready for load, and what to send to it."""

    contender: Contender
    pid: int
    port: int
    contents: list[bytes]
    requests_path: str  # a file with them


class Sample(NamedTuple):
    """A server's metrics at one moment."""

    accepted: int  # events
    refused: int  # requests
    dlq_files: int
    dlq_bytes: int
    adopted: int  # events
    stored: int  # events


@contextlib.contextmanager
def serving(contender: Contender, parent: str) -> Iterator[Serving]:
    """Run a server in a new directory below ``parent``, with its requests made and checked.

    Raises BenchError.
    """
    directory = tempfile.mkdtemp(dir=parent)
    contents = traffic.requests(contender)
    path = os.path.join(directory, "requests")
    traffic.write(path, contents)
    report.progress(f"starting {contender.name}")
    with running(contender, directory) as server:
        report.progress(f"checking and warming up: {contender.name}")
        if check(contender, server.port, contents[: contender.tried]):
            raise BenchError(f"{contender.name}: requests were refused one at a time already")
        yield Serving(contender, server.pid, server.port, contents, path)


@contextlib.contextmanager
def running(contender: Contender, directory: str) -> Iterator[Running]:
    """Run a server in an empty directory of its own. Raises BenchError if it does not start."""
    port = _free_port()
    log_path = os.path.join(directory, "server.log")
    process = _started(contender, directory, port, log_path)
    try:
        _await(contender, process, port, log_path)
        yield Running(process.pid, port)
        if process.poll() is not None:
            # whoever sent it load has noticed; the figures of the others stand
            report.progress(f"{contender.name} ended during the run:\n{_tail(log_path)}")
    finally:
        _stop(contender, process, log_path)


def sample(port: int) -> Sample:
    """Read a server's metrics now. Raises BenchError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException) as exc:
        raise BenchError(f"/metrics gave no answer: {exc!r}") from exc
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"/metrics answered {answer.status}")
    totals: dict[str, float] = {}
    for name, _, value in _SAMPLE.findall(text):
        totals[name] = totals.get(name, 0) + float(value)
    names = (
        "events_accepted_total http_requests_rejected_total dlq_files_current dlq_size_bytes"
        " events_adopted_total s3_events_stored_total"
    )
    return Sample(*(int(totals[name]) for name in names.split()))


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


def _started(contender: Contender, directory: str, port: int, log_path: str) -> _Process:
    names = {
        "port": port,
        "directory": directory,
        "root": _ROOT,
        "bin": sysconfig.get_path("scripts"),
        "python": sys.executable,
    }
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environ["PYTHONPATH"] = _ROOT
    environ |= {name: value.format(**names) for name, value in contender.environ.items()}
    with open(log_path, "wb") as log:
        return subprocess.Popen(
            [part.format(**names) for part in contender.command.split()],
            # away from the repository, whose .env would be read
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the benchmark, which stops its servers itself
            start_new_session=True,
        )


def _await(contender: Contender, process: _Process, port: int, log_path: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _serves(port, contender.ready_path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{contender.name} did not start:\n{_tail(log_path)}")
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


def _stop(contender: Contender, process: _Process, log_path: str) -> None:
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(_STOP_SECONDS)
            if process.returncode:
                # a worker that lost events says so by its exit status; the figures stand
                report.progress(f"{contender.name} exited {process.returncode}:\n{_tail(log_path)}")
    except subprocess.TimeoutExpired:
        report.progress(f"{contender.name} did not stop within {_STOP_SECONDS:g}s; killed")
    finally:
        # whatever is left of it, also when a second Ctrl-C ended the wait
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(path: str) -> str:
    with open(path, errors="replace") as file:
        return "".join(file.readlines()[-20:])
