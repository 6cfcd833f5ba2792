"""Bodies in chunks: read as gunicorn reads them, and at a cost that the cuts hardly change."""

import time
from types import SimpleNamespace

from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.unreader import IterUnreader
from hypothesis import example, given, settings
from hypothesis import strategies as st

from estat.events.parser import Intake
from estat.server.chunks import Chunks

#: As gunicorn reads from a socket.
READ_BYTES = 8192

#: What a byte on the wire may cost, in bytes of a body that comes in one chunk (docs/security.md).
#: With gunicorn's own reader it is 17 for chunks of one byte.
MOST = 10

BODY = (b'{"event":"view","page":"/a/b/c","n":[1,2,3],"text":"some words of it"}\n' * 900)[:65_536]

sizes = st.lists(st.integers(1, 300), min_size=1, max_size=50)
heads = st.sampled_from([b"%x", b"%X", b"0%x", b"000%X", b"%x;a", b'%x ; a="b;c"'])
requests = SimpleNamespace(
    limit_request_field_size=8190,
    max_buffer_headers=65_536,
    parse_headers=lambda _data, from_trailer: [from_trailer],
)


def chunked(body: bytes, cuts: list[int], heads: list[bytes]) -> bytes:
    """Return a body in chunks of these sizes and heads, over and over."""
    pieces, at, number = [], 0, 0
    while at < len(body):
        piece = body[at : at + cuts[number % len(cuts)]]
        pieces.append(heads[number % len(heads)] % len(piece) + b"\r\n" + piece + b"\r\n")
        at += len(piece)
        number += 1
    return b"".join(pieces) + b"0\r\n\r\n"


def read(reader: type[ChunkedReader], wire: bytes, step: int = READ_BYTES) -> bytes | str:
    """Return the body and what follows it, or the error."""
    unreader = IterUnreader(wire[at : at + step] for at in range(0, len(wire), step))
    try:
        return Body(reader(requests, unreader)).read() + b"|" + unreader.read()
    except Exception as exc:  # noqa: BLE001 - gunicorn's have no common base
        return type(exc).__name__


def cpu_seconds(wire: bytes) -> float:
    """Return what it costs to read a body and the events in it."""
    intake = Intake(16_384, 1000)

    def once() -> float:
        started = time.thread_time()
        found = read(Chunks, wire)
        assert isinstance(found, bytes)
        assert intake.read(found.removesuffix(b"|"), "application/x-ndjson").bodies
        return time.thread_time() - started

    return min(once() for _ in range(3))


@given(
    st.binary(max_size=2000),
    sizes,
    st.lists(heads, min_size=1, max_size=5),
    st.integers(0, 100_000),
    st.binary(max_size=3),
    st.integers(1, 3000),
)
def test_whatever_the_chunks_the_body_and_the_errors_are_gunicorns(
    body: bytes, cuts: list[int], heads: list[bytes], at: int, put: bytes, step: int
) -> None:
    wire = chunked(body, cuts, heads) + b"next"
    at %= len(wire)
    for sent in (wire, wire[:at] + put + wire[at + len(put) :], wire[:at]):
        assert read(Chunks, sent, step) == read(ChunkedReader, sent, step)


@settings(deadline=None, max_examples=20)
@given(sizes)
@example([1])
@example([1, 2, 15, 16])
@example([63, 64, 65])
def test_a_byte_on_the_wire_costs_about_the_same_however_a_body_is_cut(cuts: list[int]) -> None:
    whole, cut = chunked(BODY, [len(BODY)], [b"%x"]), chunked(BODY, cuts, [b"%x"])
    assert cpu_seconds(cut) / len(cut) <= MOST * cpu_seconds(whole) / len(whole)


@given(st.integers(1, 20))
def test_small_chunks_with_extensions_come_to_an_end(size: int) -> None:
    wire = chunked(BODY * 2, [size], [b"%x;a"])
    assert read(Chunks, wire) == "InvalidChunkSize"
    assert read(Chunks, chunked(BODY * 2, [64 + size], [b"%x;a"])) == BODY * 2 + b"|"
