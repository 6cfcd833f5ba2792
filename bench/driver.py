"""An open loop: requests at a fixed rate, each latency from the time it was due.

``python -m bench.driver PORT FILE RATE SECONDS CONNECTIONS`` sends the requests
of a file over keep-alive connections and prints one line of JSON. Where wrk
sends the next request when the last one is answered, this sends it when it is
due, over the connection that has waited longest; without a free one it waits in
line, and that counts.

It is a loop over epoll because it shares two cores with the server: some 20 µs
of CPU a request, and asleep in between. epoll sleeps whole milliseconds,
select microseconds, so it selects on the epoll.
"""

import collections
import gc
import json
import re
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from bench import percentiles
from bench.contenders import Contender
from bench.errors import BenchError
from bench.schedule import Schedule
from bench.servers import Running

#: Nines of the distribution that is handed back: up to 99.99 %.
NINES = 4

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
    cores: float  # CPU of the driver itself
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float  # sent behind the time at which it was due and a connection free
    grid_ms: list[float]  # at percentiles.grid(NINES)

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return (self.requests - self.unanswered) / self.seconds


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


def run(
    contender: Contender, server: Running, requests_path: str, rate: float, seconds: int
) -> Driven:
    """Drive a server in a process of its own. Raises BenchError."""
    finished = subprocess.run(
        [
            sys.executable, "-m", "bench.driver", str(server.port), requests_path, f"{rate:.3f}",
            str(seconds), str(contender.connections),
        ],
        capture_output=True, text=True, check=False, timeout=seconds + _PATIENCE_SECONDS,
    )  # fmt: skip
    if finished.returncode:
        raise BenchError(f"{contender.name}: the driver failed:\n{finished.stderr}")
    return Driven(**json.loads(finished.stdout))


def drive(
    port: int, contents: Sequence[bytes], rate: float, seconds: float, connections: int
) -> Driven:
    """Send the requests in turns, and wait for all answers. Raises BenchError."""
    idle = collections.deque(_Connection(port) for _ in range(connections))
    by_number = {connection.socket.fileno(): connection for connection in idle}
    latencies, lateness = array("d"), array("d")
    refused = sent = 0
    clock = time.monotonic
    with select.epoll() as epoll:
        for number in by_number:
            epoll.register(number, select.EPOLLIN)
        schedule = Schedule(clock() + _LEAD_SECONDS, rate, seconds)
        total = schedule.requests
        used = time.process_time()
        give_up = schedule.due(total) + _ANSWER_SECONDS
        while len(latencies) < total and clock() < give_up:
            while sent < total and idle and (due := schedule.due(sent)) <= (now := clock()):
                connection = idle.popleft()
                connection.send(contents[sent % len(contents)], due)
                lateness.append(now - max(due, connection.free_since))
                sent += 1
            wake = schedule.due(sent) if sent < total and idle else give_up
            select.select([epoll], [], [], max(0.0, wake - clock()))
            for number, _ in epoll.poll(0):
                connection = by_number[number]
                status = connection.status()
                if status is not None:
                    connection.free_since = clock()
                    latencies.append(connection.free_since - connection.due)
                    refused += status > 399
                    idle.append(connection)
        ended = clock()
        used = time.process_time() - used
    for connection in by_number.values():
        connection.socket.close()
    if not latencies:
        raise BenchError("no request was answered")
    ordered = sorted(latency * 1000 for latency in latencies)
    return Driven(
        requests=total,
        refused=refused,
        unanswered=total - len(latencies),
        seconds=ended - schedule.start,
        cores=used / (ended - schedule.start),
        p50_ms=percentiles.at(ordered, 50),
        p99_ms=percentiles.at(ordered, 99),
        max_ms=ordered[-1],
        late_p99_ms=percentiles.at(sorted(lateness), 99) * 1000,
        grid_ms=[percentiles.at(ordered, percent) for percent in percentiles.grid(NINES)],
    )


def _read(path: str) -> list[bytes]:
    contents = []
    with open(path, "rb") as file:
        while length := file.readline():
            contents.append(file.read(int(length)))
    return contents


def _main(port: str, path: str, rate: str, seconds: str, connections: str) -> None:
    contents = _read(path)
    # a pause of the collector would be taken for one of the server
    gc.freeze()
    gc.disable()
    driven = drive(int(port), contents, float(rate), float(seconds), int(connections))
    print(json.dumps(driven._asdict()))


if __name__ == "__main__":
    _main(*sys.argv[1:])
