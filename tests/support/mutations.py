"""Changes of the bytes that a client sends: what a faulty or hostile client might make of them.

Each is a pure function of bytes and numbers. Positions are taken modulo what there
is, so that every change can be made to all bytes.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

_POSITIONS = st.integers(0, 2000)
_LINES = st.integers(0, 40)

#: What parsers decide by.
_MORSELS = (
    *(bytes([byte]) for byte in b'\r\n\x00\t \x0b\x0c\x1f\x7f\x80\x85\xa0\xff:,;/?#%*_-+"019a'),
    *(b"\r\n", b"\r\n\r\n", b"\n\n", b"//", b"%2f", b"\r\n ", b"\r\n\t"),
    *(b"chunked", b"close", b"HTTP/1.1", b"HTTP/1.0"),
)
_FIELDS = (
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection:",
    b"Host: b",
    b"X-A: b",
    b"X-A:",
    b"Content-Length: 2",
    b"Content-Length: 0",
    b"Content-Length:",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Expect: 100-continue",
    b"Expect:",
    b"TE: trailers",
    b"X_A: b",
    b"Upgrade: h2c",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Ssl: off",
    b"SCRIPT_NAME: /x",
    b"Trailer: X-A",
    b"Content-Type: text/html",
    b"Content-Encoding: gzip",
    b" folded",
    b"",
    b"0",
    b"GET / HTTP/1.1",
)

_SIZE = re.compile(rb"(?im)(?<=^content-length: )[0-9]+|^[0-9a-f]{1,4}(?=[\r;])")


class Mutation(NamedTuple):
    """A change of bytes, and what it is told."""

    change: Callable[..., bytes]
    told: tuple[Any, ...]

    def of(self, data: bytes) -> bytes:
        return self.change(data, *self.told)


def flip_bit(data: bytes, at: int, bit: int) -> bytes:
    at %= len(data) or 1
    return data[:at] + bytes(byte ^ 1 << bit for byte in data[at : at + 1]) + data[at + 1 :]


def insert(data: bytes, at: int, morsel: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + morsel + data[at:]


def overwrite(data: bytes, at: int, morsel: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + morsel + data[at + len(morsel) :]


def delete(data: bytes, at: int, count: int) -> bytes:
    at %= len(data) or 1
    return data[:at] + data[at + count :]


def copy(data: bytes, at: int, source: int, count: int) -> bytes:
    source %= len(data) or 1
    return insert(data, at, data[source : source + count])


def swap_case(data: bytes, at: int, count: int) -> bytes:
    at %= len(data) or 1
    return data[:at] + data[at : at + count].swapcase() + data[at + count :]


def pad(data: bytes, at: int, morsel: bytes, count: int) -> bytes:
    return insert(data, at, morsel * count)


def truncate(data: bytes, at: int) -> bytes:
    return data[: at % (len(data) + 1)]


def insert_line(data: bytes, number: int, line: bytes) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(number % len(lines), line)
    return b"\r\n".join(lines)


def repeat_line(data: bytes, number: int, times: int) -> bytes:
    lines = data.split(b"\r\n")
    number %= len(lines)
    return b"\r\n".join(lines[:number] + [lines[number]] * times + lines[number + 1 :])


def swap_lines(data: bytes, first: int, second: int) -> bytes:
    lines = data.split(b"\r\n")
    first, second = first % len(lines), second % len(lines)
    lines[first], lines[second] = lines[second], lines[first]
    return b"\r\n".join(lines)


def write_size(data: bytes, number: int, text: bytes) -> bytes:
    """Write a Content-Length or the size of a chunk in another way; % stands for it."""
    sizes = list(_SIZE.finditer(data))
    if not sizes:
        return data
    size = sizes[number % len(sizes)]
    return data[: size.start()] + text.replace(b"%", size[0]) + data[size.end() :]


def ask_for_the_environ(data: bytes) -> bytes:
    """Have the application answer what it is given."""
    return data.replace(b"/collect", b"/environ")


def _mutation(change: Callable[..., bytes], *told: st.SearchStrategy[Any]) -> Any:
    return st.builds(Mutation, st.just(change), st.tuples(*told))


_morsels = st.one_of(st.sampled_from(_MORSELS), st.binary(min_size=1, max_size=2))

mutations: st.SearchStrategy[Mutation] = st.one_of(
    _mutation(ask_for_the_environ),
    _mutation(flip_bit, _POSITIONS, st.integers(0, 7)),
    _mutation(insert, _POSITIONS, _morsels),
    _mutation(overwrite, _POSITIONS, _morsels),
    _mutation(delete, _POSITIONS, st.sampled_from([1, 1, 2, 4, 20])),
    _mutation(copy, _POSITIONS, _POSITIONS, st.integers(1, 40)),
    _mutation(swap_case, _POSITIONS, st.integers(1, 20)),
    _mutation(truncate, _POSITIONS),
    _mutation(insert_line, _LINES, st.sampled_from(_FIELDS)),
    _mutation(repeat_line, _LINES, st.sampled_from([0, 2, 2, 3, 101])),
    _mutation(swap_lines, _LINES, _LINES),
    _mutation(
        write_size,
        _LINES,
        st.sampled_from(
            [
                b"0",
                b"1",
                b"2",
                b"0%",
                b"%0",
                b"+%",
                b"-%",
                b" %",
                b"% ",
                b"%,%",
                b"%_0",
                b"0x%",
                b"",
                b"%;a",
                b"%;a=b c",
            ]
        ),
    ),
    _mutation(
        pad,
        _POSITIONS,
        st.sampled_from([b"a", b" ", b"0", b"X-A: b\r\n", b"\r\n"]),
        st.sampled_from([3, 120, 1000, 8000, 8185, 8192]),
    ),
)


def mutated(
    requests: st.SearchStrategy[bytes], *, most: int, count: int = 4
) -> st.SearchStrategy[bytes]:
    """Draw up to ``count`` requests of one connection, with ``most`` changes at the most."""

    def change(parts: list[bytes], changes: list[Mutation]) -> bytes:
        data = b"".join(parts)
        for mutation in changes:
            data = mutation.of(data)
        return data

    return st.builds(
        change, st.lists(requests, min_size=1, max_size=count), st.lists(mutations, max_size=most)
    )
