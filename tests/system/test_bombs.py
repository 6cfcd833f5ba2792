"""Requests made to cost much: each stays within a budget of CPU time and memory.

The yardstick is a legal request of the same allowed size: MAX_BATCH_EVENTS events, together
MAX_BATCH_BODY_SIZE bytes, of the most JSON values that fit. What a request costs is the
worker's own CPU time and the growth of its largest resident size; no clock is looked at.
The budgets are those of docs/security.md.
"""

import gzip
import http.client
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import both_workers
from tests.support import raw_http
from tests.support.server import Answer, Server, ask

MIB = 2**20
MAX_EVENT, MAX_BODY, MAX_EVENTS = 16 * 1024, MIB, 1000

#: What a hostile request may cost: CPU time of so many yardsticks, and so many times
#: MAX_BATCH_BODY_SIZE of memory.
CPU_YARDSTICKS, MEMORY_BODIES = 10, 64

#: CPU time is counted in ticks of 10 ms, so a request is made several times.
TIMES = 5

JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"
FORM = "application/x-www-form-urlencoded"
MARK = b"must-not-be-stored"


class Cost(NamedTuple):
    """Of one request."""

    cpu_seconds: float
    memory_bytes: int


class Bomb(NamedTuple):
    """A request that costs its sender little; ``status`` is its answer."""

    name: str
    status: int
    body: bytes
    content_type: str = JSON
    encoding: str = ""


def filled(size: int, head: bytes, unit: bytes, tail: bytes, sep: bytes = b",") -> bytes:
    """Return head and tail with as many units between them as fit the size."""
    count = (size - len(head) - len(tail) + len(sep)) // (len(unit) + len(sep))
    return head + sep.join([unit] * count) + tail


def array(event: bytes) -> bytes:
    """Return an array of as many of these events as fit a request."""
    count = min(MAX_EVENTS, (MAX_BODY - 2) // (len(event) + 1))
    return b"[" + b",".join([event] * count) + b"]"


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


SMALL = MAX_BODY // MAX_EVENTS - 2  # events of which a full request has MAX_EVENTS
LEGAL = array(filled(SMALL, b'{"a":[', b"[]", b"]}"))
DIGITS = b"9" * 4299  # one more is refused by Python itself
M = b'"m":"%b",' % MARK

BOMBS = [
    Bomb("a gzip bomb", 413, gzip.compress(bytes(32 * MIB)), JSON, "gzip"),
    Bomb(
        "a gzip bomb behind members without content",
        413,
        gzip.compress(b"") * 900 + gzip.compress(bytes(32 * MIB)),
        JSON,
        "gzip",
    ),
    Bomb("a gzip bomb in a gzip", 400, gzip.compress(gzip.compress(bytes(32 * MIB))), JSON, "gzip"),
    Bomb("legal JSON at its densest, compressed", 202, gzip.compress(LEGAL), JSON, "gzip"),
    Bomb("deep arrays", 400, b"[" * MAX_BODY),
    Bomb("deep objects", 413, filled(MAX_BODY, b"", b'{"a":', b"", b"")),
    Bomb("as deep as allowed", 202, array(b'{"a":' + nested(SMALL // 2 - 5) + b"}")),
    Bomb(
        "as deep as allowed, with a lone surrogate",
        202,
        array(b'{"b":"\\ud800","a":' + nested(SMALL // 2 - 15) + b"}"),
    ),
    Bomb("a million keys", 413, b"{" + M + b",".join(b'"%x":1' % i for i in range(100_000)) + b"}"),
    Bomb("a million equal keys", 413, filled(MAX_BODY, b"{" + M, b'"a":1', b"}")),
    Bomb("tiny items", 413, filled(MAX_BODY, b"[", b"1", b"]")),
    Bomb("arrays that are no events", 400, array(filled(SMALL, b"[", b'{"":[]}', b"]"))),
    Bomb("tiny lines", 413, filled(MAX_BODY, b"", b"{}", b"", b"\n"), NDJSON),
    Bomb("empty lines", 400, b"\n" * MAX_BODY, NDJSON),
    Bomb("errors only", 400, b"\n".join([b'{"a":1' + b" " * 1000 + b"x"] * MAX_EVENTS), NDJSON),
    Bomb("a huge integer", 400, b"[{" + M + b'"a":' + b"1" * (MAX_BODY - 50) + b"}]"),
    Bomb("integers as huge as allowed", 202, array(filled(MAX_EVENT, b'{"a":[', DIGITS, b"]}"))),
    Bomb("a huge fraction", 400, b"[{" + M + b'"a":0.' + b"1" * (MAX_BODY - 50) + b'},{"a":]'),
    Bomb("many numbers out of range", 400, array(filled(MAX_EVENT, b'{"a":[', b"1e999", b"]}"))),
    Bomb(
        "many long hard fractions",
        202,
        array(filled(MAX_EVENT, b'{"a":[', b"2.2250738585072011" + b"1" * 750 + b"e-308", b"]}")),
    ),
    Bomb("lone surrogates", 202, array(filled(MAX_EVENT, b'{"a":"', b"\\ud800", b'"}', b""))),
    Bomb("a string without an end", 400, b'[{"a":"' + b"x" * (MAX_BODY - 10)),
    Bomb("a wrong byte at the end", 400, filled(MAX_BODY - 1, b'[{"a":[', b'"a"', b"") + b"\xff"),
    Bomb("too many, with a wrong byte at the end", 413, filled(MAX_BODY - 1, b"[", b"1", b"x")),
    Bomb("a form of 100,000 fields", 413, b"&".join(b"%x=" % i for i in range(100_000)), FORM),
    Bomb("a form of percent signs", 202, b"a=" + b"%" * (MAX_EVENT - 2), FORM),
    Bomb("a field again and again", 202, b"a=&" * 999 + b"a=" + b"%41" * 4000, FORM),
]


def head(line: str, *fields: bytes) -> bytes:
    return b"".join(part + b"\r\n" for part in (line.encode(), b"Host: x", *fields)) + b"\r\n"


#: Of a head the server reads no more than it takes, so the answer may come before its end.
HEADS = {
    "a query of 100,000 fields": (414, head(f"GET /collect?{'a&' * 100_000} HTTP/1.1")),
    "a query of small fields": (413, head(f"GET /collect?{'a&' * 2000} HTTP/1.1")),
    "a query of percent signs": (204, head(f"GET /collect?a={'%' * 4000} HTTP/1.1")),
    "a value of a million bytes": (431, head("GET /collect?a=b HTTP/1.1", b"X-A: " + b"b" * MIB)),
    "a million fields": (431, head("GET /collect?a=b HTTP/1.1", *[b"X-A: b"] * 150_000)),
    "values as long as allowed": (
        204,
        head("GET /collect?a=b HTTP/1.1", *(b"X-%d: %b" % (i, b"b," * 4000) for i in range(8))),
    ),
    "long fields that are read": (
        204,
        head(
            "GET /collect?a=b HTTP/1.1",
            b"User-Agent: " + b"\xff" * 8000,
            b"X-Forwarded-For: " + b"1," * 4000,
            b"Cookie: " + b"a=b;" * 2000,
            b"Accept: " + b"a/b," * 2000,
            b"Content-Type: " + b"a;" * 4000,
        ),
    ),
    "a content coding that is long": (
        415,
        head(
            "POST /collect HTTP/1.1", b"Content-Encoding: " + b"gzip," * 1600, b"Content-Length: 0"
        ),
    ),
}


class Target:
    """The server, and what requests cost it."""

    def __init__(self, server: Server, store: Path) -> None:
        self.server = server
        self._store = store
        (self._worker,) = server.worker_pids()
        self.yardstick = self.cost(lambda: self.post(Bomb("legal", 202, LEGAL)))

    def post(self, bomb: Bomb) -> Answer:
        headers = {"Content-Type": bomb.content_type, "Content-Encoding": bomb.encoding}
        return self.server.request("POST", "/collect", bomb.body, headers)

    def cost(self, request: Callable[[], object]) -> Cost:
        """Return what a request costs, all that it leads to included."""
        proc = Path(f"/proc/{self._worker}")
        self.server.until(self.server.settled, "nothing else is to be done")
        (proc / "clear_refs").write_text("5")  # the largest resident size begins anew
        cpu, memory = self._cpu_seconds(), self._status("VmHWM")
        for _ in range(TIMES):
            request()
        self.server.until(self.server.settled, "what was accepted is stored")
        return Cost((self._cpu_seconds() - cpu) / TIMES, self._status("VmHWM") - memory)

    def check(self, name: str, request: Callable[[], object]) -> None:
        """Check that a request keeps to the budget, that others are served, and nothing breaks."""
        cost = self.cost(request)
        print(
            f"{name}: {cost.cpu_seconds / self.yardstick.cpu_seconds:.2f} yardsticks, "
            f"{cost.memory_bytes / MAX_BODY:.1f} bodies"
        )
        assert cost.cpu_seconds <= CPU_YARDSTICKS * self.yardstick.cpu_seconds
        assert cost.memory_bytes <= MEMORY_BODIES * MAX_BODY
        (worker,) = self.server.worker_pids()
        assert worker == self._worker
        assert self.server.metrics()['http_requests_rejected_total{reason="internal_error"}'] == 0
        assert "Traceback" not in self.server.log_text()

    def accepted(self) -> float:
        return self.server.metrics()["events_accepted_total"]

    def stored(self) -> list[bytes]:
        """Return the lines of all events."""
        files = self._store.rglob("raw/dt=*/**/*.jsonl.gz")
        return [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._worker}/stat").read_text().rpartition(")")[2].split()
        user, system = fields[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self._worker}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(name)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("bombs")
    settings = {
        "RAW_BUCKET": f"file:{directory / 'store'}",
        "MAX_BODY_SIZE": str(MAX_EVENT),
        "MAX_BATCH_BODY_SIZE": str(MAX_BODY),
        "MAX_BATCH_EVENTS": str(MAX_EVENTS),
        "BATCH_SIZE": "5000",
        "FLUSH_INTERVAL": "50ms",
    }
    with Server(directory, settings) as server:
        yield Target(server, directory / "store")


@pytest.mark.parametrize("bomb", BOMBS, ids=[bomb.name for bomb in BOMBS])
def test_a_body_made_to_cost_much_keeps_to_the_budget(bomb: Bomb, target: Target) -> None:
    assert len(bomb.body) <= MAX_BODY, "else it is refused for that"

    def request() -> None:
        answer = target.post(bomb)
        assert answer.status == bomb.status, answer
        assert len(answer.body) < 10_000

    before = target.accepted()
    target.check(bomb.name, request)
    assert (target.accepted() > before) == (bomb.status == 202)


@both_workers
@pytest.mark.parametrize("name", HEADS)
def test_a_head_made_to_cost_much_keeps_to_the_budget(name: str, target: Target) -> None:
    status, data = HEADS[name]

    def request() -> None:
        (answer,) = raw_http.exchange(target.server.port, data).answers
        assert answer.status == status, answer

    target.check(name, request)


@both_workers
def test_others_are_served_while_bombs_come_in(target: Target) -> None:
    bombs = [bomb for bomb in BOMBS if bomb.status != 202]
    others = target.server.connection()
    for number, bomb in enumerate(bombs):
        hostile = http.client.HTTPConnection("127.0.0.1", target.server.port, timeout=20)
        headers = {"Content-Type": bomb.content_type, "Content-Encoding": bomb.encoding}
        hostile.request("POST", "/collect", bomb.body, headers)  # whose answer nobody reads yet
        body = json.dumps({"served": number}).encode()
        assert ask(others, "POST", "/collect", body, {"Content-Type": JSON}).status == 202
        assert hostile.getresponse().status == bomb.status
        hostile.close()
    others.close()
    target.server.until(target.server.settled, "everything is stored")
    stored = target.stored()
    assert not [line for line in stored if MARK in line]
    served = [json.loads(line)["body"]["served"] for line in stored if b'"served"' in line]
    assert sorted(served) == list(range(len(bombs)))
