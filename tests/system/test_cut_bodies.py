"""However a body is cut on its way, it is answered and stored as if it had come in one piece."""

import gzip
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise, product
from typing import Any

import pytest

from tests.conftest import both_workers
from tests.support.raw_http import Answer, Pulse, RawConnection
from tests.support.server import Server

pytestmark = both_workers

#: Connections that wait for their next piece at a time.
AT_A_TIME = 60

#: A body is cut at each byte; a larger one at so many places.
MOST_CUTS = 200

#: How often each body is cut into many pieces.
MANY = 5

FORM = "application/x-www-form-urlencoded"
BODIES = {
    "object": ("application/json", '{"n":1.50,"t":"안녕 \\ud83d\\ude00 😀","of":{"a":[]}}'),
    "array": ("application/json", '[{"n":1},{"n":NaN},2,[{"n":3}],{"n":1e400},{"é":4}]\n'),
    "lines": ("application/x-ndjson", '{"n":1}\r\n\n{"n":\n{"n":2}{"n":3}\n7\n[{"n":"é"},0]'),
    "many lines": ("text/plain", '{"text":"%s"}\n' % ("안녕 " * 500) * 20),
    "values": ("text/plain", '{"n":1}{"n":2} [{"n":3}]\t{"n":4}'),
    "values over lines": ("", '\n{\n"n":1}\n{"n":\n2}\n'),
    "mark and object": ("application/json", '\ufeff{"n":1}'),
    "mark and lines": ("text/plain", '\ufeff{"n":1}\n{"n":2'),
    "form": (FORM, "n=1&n=%EA%B0%80+x&b=%BE%C8&_charset_=euc-kr&é=%"),
    "report": ("application/csp-report", '{"csp-report":{"blocked-uri":"https://x.example/"}}'),
}
REFUSED = {
    "broken": ("application/json", '{"n":1}}{"n":2}'),
    "not UTF-8": ("application/json", '{"n":"\udcff"}'),
    "no form": (FORM, '{"n":1}'),
    "nothing": ("text/plain", "\n"),
}

#: What is sent of a request at a time.
Pieces = list[bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("cut")
    with Server(directory, {"RAW_BUCKET": f"file:{directory / 'store'}"}) as running:
        yield running


def cut(data: bytes, places: list[int]) -> Pieces:
    return [data[a:b] for a, b in pairwise(sorted({0, *places, len(data)}))]


def in_chunks(pieces: Pieces) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def ways(body: bytes, *, chunked: bool) -> Iterator[tuple[bytes, list[int]]]:
    """Yield a body as it is sent and where that is cut: nowhere, at each byte, at many bytes."""
    sent = in_chunks([body]) if chunked else body
    yield sent, []
    yield from ((sent, [at]) for at in range(0, len(sent), 1 + len(sent) // MOST_CUTS))
    by_chance = random.Random(body)
    for _ in range(MANY):
        if chunked:
            sent = in_chunks(cut(body, by_chance.choices(range(len(body)), k=9)))
        yield sent, by_chance.choices(range(len(sent)), k=9)


def in_pieces(head: str, sent: bytes, places: list[int]) -> Pieces:
    """Return what is sent of a request at a time; a cut at 0 is behind the head."""
    whole_head = f"POST /collect HTTP/1.1\r\nHost: a\r\n{head}\r\n".encode()
    first, *more = cut(sent, places)
    return [whole_head, first, *more] if 0 in places else [whole_head + first, *more]


def answers(server: Server, requests: list[Pieces]) -> Iterator[Answer]:
    """Send requests; each piece has been read before the next one of its request is sent."""
    with ExitStack() as opened:
        pulse = opened.enter_context(Pulse(server.port))
        connections = [
            opened.enter_context(RawConnection(server.port)) for _ in requests[:AT_A_TIME]
        ]
        for start in range(0, len(requests), AT_A_TIME):
            group = list(zip(connections, requests[start:], strict=False))
            for turn in range(max(len(pieces) for _, pieces in group)):
                for connection, pieces in group:
                    connection.send(b"".join(pieces[turn : turn + 1]))
                pulse.beat()
            for connection, _ in group:
                (answer,) = connection.read_answers(1).answers
                connection.forget()
                yield answer


def stored(server: Server) -> dict[str, list[Any]]:
    """Return the events of each request in their order, by its User-Agent."""
    found = defaultdict(list)
    for line in sorted(server.stored(), key=lambda line: int(line["id"].rpartition("-")[2])):
        found[line["user_agent"]].append(line["body"])
    return found


def test_a_body_is_the_same_however_it_is_cut_chunked_and_compressed(server: Server) -> None:
    requests: dict[str, Pieces] = {}
    wholes: dict[str, str] = {}
    for name, (kind, text) in (BODIES | REFUSED).items():
        plain = text.encode(errors="surrogateescape")
        for packed, chunked in product((False, True), repeat=2):
            fields = (
                f"Content-Type: {kind}\r\n" * bool(kind) + "Content-Encoding: gzip\r\n" * packed
            )
            fields += "Transfer-Encoding: chunked\r\n" * chunked
            body = gzip.compress(plain, mtime=0) if packed else plain
            for sent, places in ways(body, chunked=chunked):
                agent = f"{name}, {len(requests)}"
                head = f"{fields}User-Agent: {agent}\r\n"
                head += "" if chunked else f"Content-Length: {len(sent)}\r\n"
                requests[agent] = in_pieces(head, sent, places)
                wholes.setdefault(name, agent)
    answered = dict(zip(requests, answers(server, list(requests.values())), strict=True))
    found = stored(server)
    for agent, pieces in requests.items():
        whole = wholes[agent.partition(",")[0]]
        assert answered[agent] == answered[whole], pieces
        assert found[agent] == found[whole], pieces
    assert {name for name in wholes if found[wholes[name]]} == BODIES.keys()
