"""An open loop: requests at a fixed rate, and percentiles of their latencies.

``python -m bench.driver PORT FILE RATE SECONDS CONNECTIONS`` sends the requests
of a file over keep-alive connections and prints one line of JSON. Where wrk
sends the next request when the last one is answered, this sends it when it is
due, over the connection that has waited longest; without a free one it waits in
line, and that counts: a latency is counted from the time at which the request was
due. A server that stalls delays what comes behind it too, and a driver that waited
for it would not see that.

It is a loop over epoll because it shares two cores with the server: some 20 µs
of CPU a request, and asleep in between. epoll sleeps whole milliseconds,
select microseconds, so it selects on the epoll.
"""

import collections
import gc
import json
import math
import re
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bench import BenchError, traffic
from bench.servers import Serving

#: Nines of the distribution that is handed back: up to 99.99 %.
NINES = 4
_STEPS_PER_NINE = 20

_MOST_BYTES = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
#: How long the last answers may take.
_ANSWER_SECONDS = 10.0
_PATIENCE_SECONDS = 30
#: What lies between the start of the process and the first request.
_LEAD_SECONDS = 0.2


class Driven(NamedTuple):
    """What one round found; times are milliseconds, of a request."""

    requests: int
    refused: int  # answers over 399
    unanswered: int
    seconds: float  # until the last answer
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float  # sent behind the time at which it was due and a connection free
    grid_ms: list[float]  # at grid(NINES)

    @property
    def missed(self) -> int:
        """Requests that were not accepted."""
        return self.refused + self.unanswered

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return (self.requests - self.unanswered) / self.seconds


class Schedule(NamedTuple):
    """When each request is due: evenly, whatever becomes of those before it."""

    start: float  # seconds, of the clock that it is compared with
    rate: float  # requests a second
    seconds: float

    @property
    def requests(self) -> int:
        """How many there are: all that are due before the end."""
        return math.ceil(self.rate * self.seconds)

    def due(self, number: int) -> float:
        """Return when a request is to be sent; they count from 0."""
        # from the start, not from the one before: errors of rounding do not add up
        return self.start + number / self.rate


@dataclass
class _Answers:
    """What came back so far; times are seconds."""

    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    lateness: "array[float]" = field(default_factory=lambda: array("d"))
    refused: int = 0


class _Connection:
    """One request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.free_since = 0.0
        self.answer = b""

    def send(self, content: bytes, due: float) -> None:
        self.due = due
        self.answer = b""
        if self.socket.send(content) != len(content):
            raise BenchError("a request did not fit into the socket's buffer")

    def status(self) -> int | None:
        """Return the status once the answer is complete."""
        received = self.socket.recv(_MOST_BYTES)
        if not received:
            raise BenchError("the server hung up")
        self.answer += received
        head, end, body = self.answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not end or length is None or len(body) < int(length[1]):
            return None
        return int(head[9:12])


def run(serving: Serving, rate: float, seconds: int) -> Driven:
    """Drive a server in a process of its own. Raises BenchError."""
    load = f"{rate:.3f} {seconds} {serving.contender.connections}"
    command = [sys.executable, "-m", "bench.driver", str(serving.port), serving.requests_path]
    command += load.split()
    patience = seconds + _PATIENCE_SECONDS
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=patience
    )
    if finished.returncode:
        raise BenchError(f"{serving.contender.name}: the driver failed:\n{finished.stderr}")
    return Driven(**json.loads(finished.stdout))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that so many percent of all, sorted, are not above.

    It is the nearest rank: a value that some request really had.
    """
    # the product is rounded first: 99.9 % of 1,000 must be the 999th, not the 1,000th
    rank = math.ceil(round(percent * len(ordered) / 100, 6))
    return ordered[max(rank, 1) - 1]


def grid(nines: int) -> list[float]:
    """Return percents whose distances to 100 shrink evenly in the logarithm: 0 … 90 … 99 … 99.9."""
    return [100 - 100 * 10 ** (-n / _STEPS_PER_NINE) for n in range(nines * _STEPS_PER_NINE + 1)]


def drive(
    port: int, contents: Sequence[bytes], rate: float, seconds: float, connections: int
) -> Driven:
    """Send the requests in turns, and wait for all answers. Raises BenchError."""
    opened = [_Connection(port) for _ in range(connections)]
    answers = _Answers()
    schedule = Schedule(time.monotonic() + _LEAD_SECONDS, rate, seconds)
    _exchange(opened, contents, schedule, answers)
    seconds = time.monotonic() - schedule.start
    for connection in opened:
        connection.socket.close()
    if not answers.latencies:
        raise BenchError("no request was answered")
    ordered = sorted(latency * 1000 for latency in answers.latencies)
    return Driven(
        requests=schedule.requests,
        refused=answers.refused,
        unanswered=schedule.requests - len(ordered),
        seconds=seconds,
        p50_ms=percentile(ordered, 50),
        p99_ms=percentile(ordered, 99),
        max_ms=ordered[-1],
        late_p99_ms=percentile(sorted(answers.lateness), 99) * 1000,
        grid_ms=[percentile(ordered, percent) for percent in grid(NINES)],
    )


def _exchange(
    opened: list[_Connection], contents: Sequence[bytes], schedule: Schedule, answers: _Answers
) -> None:
    clock = time.monotonic
    idle = collections.deque(opened)
    by_number = {connection.socket.fileno(): connection for connection in opened}
    sent, total = 0, schedule.requests
    give_up = schedule.due(total) + _ANSWER_SECONDS
    with select.epoll() as epoll:
        for number in by_number:
            epoll.register(number, select.EPOLLIN)
        while len(answers.latencies) < total and clock() < give_up:
            while sent < total and idle and (due := schedule.due(sent)) <= (now := clock()):
                connection = idle.popleft()
                connection.send(contents[sent % len(contents)], due)
                answers.lateness.append(now - max(due, connection.free_since))
                sent += 1
            wake = schedule.due(sent) if sent < total and idle else give_up
            select.select([epoll], [], [], max(0.0, wake - clock()))
            for number, _ in epoll.poll(0):
                connection = by_number[number]
                status = connection.status()
                if status is not None:
                    connection.free_since = clock()
                    answers.latencies.append(connection.free_since - connection.due)
                    answers.refused += status > 399
                    idle.append(connection)


def _main(port: str, path: str, rate: str, seconds: str, connections: str) -> None:
    contents = list(traffic.read(path))
    # a pause of the collector would be taken for one of the server
    gc.freeze()
    gc.disable()
    driven = drive(int(port), contents, float(rate), float(seconds), int(connections))
    print(json.dumps(driven._asdict()))


if __name__ == "__main__":
    _main(*sys.argv[1:])
