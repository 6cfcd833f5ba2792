"""How long a cold start takes: from the start of gunicorn to the first event accepted.

Cold is the process and not the disk: its files are in the page cache. The first
request is sent as soon as the port is open and waits there until a worker
takes it, so nothing is lost to polling.
"""

import statistics
import tempfile
import time
from argparse import Namespace
from typing import NamedTuple

from bench import BenchError, contenders, machine, report, servers, traffic
from bench.contenders import Contender
from bench.report import Target
from bench.store import Store

TARGET = Target("start to the first 202", 2.0, " s")

_PATIENCE_SECONDS = 30.0
_AGAIN_SECONDS = 0.01


class Start(NamedTuple):
    """One start."""

    seconds: float
    cpu_seconds: float


def run(directory: str, options: Namespace) -> None:
    """Measure the start of gunicorn until the first event is accepted."""
    with Store() as s3:
        found: dict[Contender, list[Start]] = {one: [] for one in contenders.start(s3.url)}
        for number in range(1, options.rounds + 1):
            for contender, starts in found.items():
                starts.append(_start(contender, tempfile.mkdtemp(dir=directory)))
                seconds = f"{starts[-1].seconds:.2f} s"
                report.progress(f"round {number} of {options.rounds}: {contender.name}: {seconds}")
    report.describe(
        directory,
        "Start: seconds and CPU seconds from the start of gunicorn to the first 202, with an "
        f"empty DLQ; median (min-max) of {options.rounds} alternating starts",
    )
    rows = [
        (
            contender.name,
            report.spread((s.seconds for s in starts), 2),
            report.spread((s.cpu_seconds for s in starts), 2),
        )
        for contender, starts in found.items()
    ]
    report.table("contender | s | CPU s", rows)
    slowest = max(found, key=lambda contender: _median(found[contender]))
    print(TARGET.line(slowest.name, _median(found[slowest])))


def _median(starts: list[Start]) -> float:
    return statistics.median(s.seconds for s in starts)


def _start(contender: Contender, directory: str) -> Start:
    first = traffic.requests(contender)[:1]
    began = time.monotonic()
    with servers.running(contender, directory) as running:
        # it may be refused while the server still starts
        while servers.check(contender, running.port, first):
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise BenchError(f"{contender.name}: the first event was answered 503")
            time.sleep(_AGAIN_SECONDS)
        return Start(time.monotonic() - began, machine.cpu_seconds(running.pid))
