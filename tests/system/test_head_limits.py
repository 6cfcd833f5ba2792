"""How much a head may have, as behind a balancer; and what is refused is counted."""

import json
from collections.abc import Iterator

import pytest

from tests.support.raw_http import RawConnection
from tests.support.server import Server

pytestmark = pytest.mark.quick

KIB = 1024
MALFORMED = 'http_requests_rejected_total{reason="malformed"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"FLUSH_INTERVAL": "50ms", "CAPTURE_HEADERS": "cookie", "MAX_BODY_SIZE": "32KiB"}
    directory = tmp_path_factory.mktemp("heads")
    with Server(directory, {"RAW_BUCKET": f"file:{directory / 'store'}"} | settings) as running:
        yield running


def get(line_bytes: int = 100, *fields: str) -> bytes:
    """Return a GET whose first line has so many bytes, with the end of the line."""
    spare = line_bytes - len("GET /collect.gif?a= HTTP/1.1\r\n")
    lines = [f"GET /collect.gif?a={'x' * spare} HTTP/1.1", "Host: a", *fields]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def field(size: int, name: str = "X-A") -> str:
    """Return a field of so many bytes, with the end of its line."""
    return f"{name}: {'x' * (size - len(name) - 4)}"


def answer(server: Server, data: bytes, piece_bytes: int) -> int:
    with RawConnection(server.port) as connection:
        for start in range(0, len(data), piece_bytes):
            connection.send(data[start : start + piece_bytes])
        connection.half_close()
        return connection.read_all().answers[0].status


HEADS = {
    "a line of 16 KiB": (get(16 * KIB), 200),
    "a longer line": (get(16 * KIB + 3), 414),
    "a field of 16 KiB": (get(100, field(16 * KIB)), 200),
    "a longer field": (get(100, field(16 * KIB + 1)), 431),
    "a repeated field of 16 KiB": (get(100, field(16 * KIB), "X-A: y"), 200),
    "a head of 64 KiB": (get(100, *[field(15 * KIB, f"X-{n}") for n in range(4)]), 200),
    "a larger head": (get(100, *[field(15 * KIB, f"X-{n}") for n in range(5)]), 431),
    "no HTTP": (b"GET\r\n\r\n", 400),
}


@pytest.mark.parametrize("piece_bytes", [1 << 20, 1000])
@pytest.mark.parametrize(("head", "status"), HEADS.values(), ids=HEADS)
def test_a_head_may_have_what_a_balancer_lets_through(
    head: bytes, status: int, piece_bytes: int, server: Server
) -> None:
    before = server.metrics()[MALFORMED]
    assert answer(server, head, piece_bytes) == status
    assert server.metrics()[MALFORMED] == before + (status != 200)


def test_several_fields_of_cookies_are_stored_as_one(server: Server) -> None:
    fields = ["Cookie: a=1", "X-A: b", "Cookie: c=2"]
    assert answer(server, get(100, *fields), 1 << 20) == 200
    lines = server.stored()
    assert "a=1; c=2" in [line["cookie"] for line in lines], json.dumps(lines[-1])
