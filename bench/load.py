"""Load: wrk with keep-alive connections, each sending its next request when answered.

wrk is closed-loop: its latencies are those at full load, mostly time in line.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from bench import BenchError, machine
from bench.servers import Serving

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "post.lua")
_SUMMARY = re.compile(
    r"^bench answers=(\d+) refused=(\d+) failed=(\d+) duration_us=(\d+) p50_us=(\d+) p99_us=(\d+)$",
    re.MULTILINE,
)
_TIMEOUT_SECONDS = 5
#: What wrk may take beyond its round: reading the requests, the last answers.
_PATIENCE_SECONDS = 30


class Round(NamedTuple):
    """What one round found."""

    answers: int
    refused: int  # answers over 399
    failed: int  # connections that were not opened, broke, or got no answer in time
    events_per_second: float
    cpu_us: float  # per event
    p50_ms: float  # per request
    p99_ms: float


def wrk_version() -> str | None:
    """Return wrk's version; None if there is no wrk."""
    if not shutil.which("wrk"):
        return None
    # -v is an error to wrk, which prints its version all the same
    shown = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    match = re.search(r"wrk (\S+)", shown.stdout + shown.stderr)
    return match[1] if match else "of unknown version"


def run(serving: Serving, seconds: int) -> Round:
    """Send load for so many seconds. Raises BenchError."""
    contender, patience = serving.contender, seconds + _PATIENCE_SECONDS
    command = _command(serving, seconds)
    before = machine.cpu_seconds(serving.pid)
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=patience
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchError(f"{contender.name}: wrk did not end") from exc
    used_seconds = machine.cpu_seconds(serving.pid) - before
    summary = _SUMMARY.search(finished.stdout)
    if finished.returncode or not summary:
        raise BenchError(f"{contender.name}: wrk failed:\n{finished.stdout}{finished.stderr}")
    answers, refused, failed, duration_us, p50_us, p99_us = map(int, summary.groups())
    events = (answers - refused) * contender.events_per_request
    if not events:
        raise BenchError(f"{contender.name}: {refused} of {answers} requests refused, none served")
    return Round(
        answers=answers,
        refused=refused,
        failed=failed,
        events_per_second=events / duration_us * 1e6,
        # requests still in flight at the end cost CPU but don't count: at most one
        # for each connection, of thousands
        cpu_us=used_seconds * 1e6 / events,
        p50_ms=p50_us / 1000,
        p99_ms=p99_us / 1000,
    )


@contextlib.contextmanager
def steady(serving: Serving, most_seconds: int) -> Iterator[None]:
    """Send load while the block lasts. Raises BenchError if it did not last as long."""
    process = subprocess.Popen(
        _command(serving, most_seconds),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is for the benchmark, which ends its load itself
        start_new_session=True,
    )
    try:
        yield
        if process.poll() is not None:
            raise BenchError(f"{serving.contender.name}: wrk ended early, {process.returncode}")
    finally:
        # wrk's way to end before its time
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(serving: Serving, seconds: int) -> list[str]:
    options = (
        f"--threads 1 --connections {serving.contender.connections} --duration {seconds}s "
        f"--timeout {_TIMEOUT_SECONDS}s http://127.0.0.1:{serving.port}"
    )
    return ["wrk", "--script", _SCRIPT, *options.split(), "--", serving.requests_path]
