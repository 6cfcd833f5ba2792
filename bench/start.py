"""How long a cold start takes: from the start of gunicorn to the first event accepted.

Cold is the process and not the disk: its files are in the page cache. The first
request is sent as soon as the port is open and waits there until a worker
takes it, so nothing is lost to polling.
"""

import http.client
import json
import os
import socket
import statistics
import time
from typing import NamedTuple

from bench import machine, report, servers, store, traffic
from bench.contenders import Contender, start
from bench.errors import BenchError
from bench.target import Target, verdict

TARGET = Target("start to the first 202", 2.0, " s")

_ANSWER_SECONDS = 30.0
_AGAIN_SECONDS = 0.01


class Start(NamedTuple):
    """One start."""

    seconds: float
    cpu_seconds: float


def run(directory: str, number_of_rounds: int) -> None:
    """Measure in an empty directory, and print the report. Raises BenchError."""
    hits = traffic.read_hits(directory)
    with store.Store() as s3:
        found: dict[Contender, list[Start]] = {contender: [] for contender in start(s3.url)}
        for number in range(1, number_of_rounds + 1):
            for contender, starts in found.items():
                own = os.path.join(directory, f"{contender.server.name}-{number}")
                os.mkdir(own)
                starts.append(_start(contender, traffic.requests(hits, contender)[0], own))
                report.progress(
                    f"round {number} of {number_of_rounds}: {contender.name}: "
                    f"{starts[-1].seconds:.2f} s"
                )
    print(
        f"- Start: seconds and CPU seconds from the start of gunicorn to the first 202, with an "
        f"empty DLQ; median (min-max) of {number_of_rounds} alternating starts",
        end="\n\n",
    )
    rows = [
        (
            contender.name,
            report.spread((s.seconds for s in starts), 2),
            report.spread((s.cpu_seconds for s in starts), 2),
            verdict(TARGET.met(_median(starts))),
        )
        for contender, starts in found.items()
    ]
    print(report.table(("contender", "s", "CPU s", "target"), rows), end="\n\n")
    slowest = max(found, key=lambda contender: _median(found[contender]))
    print(TARGET.line(slowest.name, _median(found[slowest])))


def _median(starts: list[Start]) -> float:
    return statistics.median(s.seconds for s in starts)


def _start(contender: Contender, content: bytes, directory: str) -> Start:
    began = time.monotonic()
    with servers.running(contender.server, directory) as running:
        # it may be refused while the server still starts
        while (status := _post(contender, running.port, content)) != 202:
            if status != 503 or time.monotonic() - began > _ANSWER_SECONDS:
                raise BenchError(f"{contender.name}: the first event was answered {status}")
            time.sleep(_AGAIN_SECONDS)
        return Start(time.monotonic() - began, machine.tree_seconds(running.pid))


def _post(contender: Contender, port: int, content: bytes) -> int:
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as connection:
            connection.sendall(content)
            answer = http.client.HTTPResponse(connection, method="POST")
            answer.begin()
            body = answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise BenchError(f"{contender.name}: the first event got no answer: {exc!r}") from exc
    if answer.status == 202 and json.loads(body) != {"accepted": 1}:
        raise BenchError(f"{contender.name}: the first event was answered {body[:300]!r}")
    return answer.status
