"""What an attacker costs the others: p99 beside each attack over p99 alone.

One client of each attack sends as fast as the server reads, on one connection after the other;
an open loop drives the server at a steady rate meanwhile. Each round has all attacks, and a part
without any, so that what else the machine does meets all of them.
"""

import contextlib
import socket
import threading
from argparse import Namespace
from collections.abc import Iterator

from bench import contenders, driver, report, servers
from bench.store import Store

#: Events a second of the others: far from what a worker can take.
_RATE = 200

_POST = b"POST /collect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_DENSE = b"[%b]" % b",".join([b'{"a":[%b]}' % b",".join([b"[]"] * 345)] * 1000)

#: What a connection sends at first, and then for ever.
_ATTACKS = {
    "alone": (b"", b""),
    "chunks of one byte": (_CHUNKED, b"1\r\n \r\n"),
    "chunks with extensions": (_CHUNKED, b"1;a=b\r\n \r\n"),
    "a giant length": (_POST + b"Content-Length: 1000000000000\r\n\r\n", b" "),
    "an endless head": (_POST, b"X-A: b\r\n"),
    "requests sent ahead": (b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
    "dear JSON": (b"", _POST + b"Content-Length: %d\r\n\r\n" % len(_DENSE) + _DENSE),
}


def run(directory: str, options: Namespace) -> None:
    """Measure the wait for an answer beside each kind of attack."""
    with (
        Store() as s3,
        servers.serving(contenders.to_store(contenders.LATENCY[0], s3.url), directory) as server,
    ):
        found: dict[str, list[float]] = {name: [] for name in _ATTACKS}
        for _ in range(options.rounds):
            for name, (head, unit) in _ATTACKS.items():
                with _attack(server.port, head, unit):
                    found[name].append(driver.run(server, _RATE, options.seconds).p99_ms)
    report.describe(
        directory,
        f"Load: {_RATE} events/s beside one attacker, {options.rounds} alternating rounds of "
        f"{options.seconds} s",
        "Figures: median (min-max) over the rounds; the quotient is that of each round",
    )
    rows = []
    for name, p99s in found.items():
        quotients = [p99 / alone for p99, alone in zip(p99s, found["alone"], strict=True)]
        rows.append((name, report.spread(p99s, 2), report.spread(quotients, 1)))
    report.table("attack | p99 ms | p99 ÷ alone", rows)


@contextlib.contextmanager
def _attack(port: int, head: bytes, unit: bytes) -> Iterator[None]:
    """Attack while the block lasts; without a unit not at all."""
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=1) as client,
            ):
                client.sendall(head)
                while not ended.is_set():
                    client.sendall(unit * (1 + 2**16 // len(unit)))

    thread = threading.Thread(target=send if unit else ended.wait)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
