"""What a process prints is written by a thread of its own, in order, and nobody waits for it."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from estat.accounting import metrics
from estat.server.log_stream import LogStream
from tests.support.eventually import eventually

LINE = "x" * 99 + "\n"
#: Far more than the queue of a process holds.
MANY_LINES = 20_000


class Pipe:
    """A pipe of a page, whose end is written to."""

    def __init__(self) -> None:
        self.read_end, self.end = os.pipe()
        fcntl.fcntl(self.end, fcntl.F_SETPIPE_SZ, 4096)

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, as soon as they are there."""
        data = b""
        while len(data) < size:
            piece = os.read(self.read_end, size - len(data))
            assert piece, "it was closed"
            data += piece
        return data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.read_end)


def test_lines_come_whole_and_in_order(pipe: Pipe) -> None:
    stream = LogStream(pipe.end)
    for text in ("a\n", "b", "b\nc\n", "", "\u20ac\udc80\nd"):
        assert stream.write(text) == len(text)
    assert stream.drain()
    assert pipe.read(17) == b"a\nbb\nc\n\xe2\x82\xac\\udc80\n"[:17]


def test_nobody_waits_for_a_reader_and_what_is_dropped_is_counted(pipe: Pipe) -> None:
    stream = LogStream(pipe.end)
    for _ in range(MANY_LINES):
        stream.write(LINE)
    row = metrics.page().rows[1]
    stream.count_in(row)
    for _ in range(100):
        stream.write(LINE)
    dropped = row.cells[metrics.LOG_DROPPED]
    assert 100 < dropped < MANY_LINES
    assert not stream.drain()
    assert os.get_blocking(pipe.end), "others share it"
    kept = MANY_LINES + 100 - dropped
    assert pipe.read(kept * len(LINE)) == LINE.encode() * kept
    eventually(stream.drain, 10, "all is written")


def test_what_can_not_be_written_is_counted() -> None:
    nowhere = os.open("/dev/full", os.O_WRONLY)
    stream, row = LogStream(nowhere), metrics.page().rows[1]
    stream.count_in(row)
    stream.write("a\nb\n")
    assert stream.drain()
    assert row.cells[metrics.LOG_DROPPED] == 2


def test_what_there_is_no_memory_for_is_counted_and_nobody_waits_for_it(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, row = LogStream(pipe.end), metrics.page().rows[1]
    stream.count_in(row)
    before = row.cells[metrics.LOG_DROPPED]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", _without_memory)
        stream.write("a\nb\n")
        assert stream.drain()
    stream.write("c\n")
    assert stream.drain()
    assert pipe.read(2) == b"c\n"
    assert row.cells[metrics.LOG_DROPPED] - before == 2


def _without_memory(_descriptor: int, _data: bytes) -> int:
    raise MemoryError


def test_a_reload_counts_no_dropped_line_again() -> None:
    stream, row = LogStream(os.open("/dev/full", os.O_WRONLY)), metrics.page().rows[1]
    stream.write("a\n")
    assert stream.drain()
    before = row.cells[metrics.LOG_DROPPED]
    for _ in range(3):
        stream.count_in(row)
    assert row.cells[metrics.LOG_DROPPED] - before == 1


def test_a_descriptor_that_somebody_made_non_blocking_gets_all_lines(pipe: Pipe) -> None:
    os.set_blocking(pipe.end, False)
    stream = LogStream(pipe.end)
    for _ in range(500):
        stream.write(LINE)
    assert pipe.read(500 * len(LINE)) == LINE.encode() * 500


def test_a_forked_process_writes_its_own_lines_and_its_parent_what_had_waited(pipe: Pipe) -> None:
    stream = LogStream(pipe.end)
    for number in range(1000):
        stream.write(f"{number:04}\n")  # more than the pipe holds
    heard, go = os.pipe()
    child = os.fork()
    if child == 0:
        inherited = not stream.drain()
        os.read(heard, 1)
        stream.write("child\n")
        os._exit(inherited or not stream.drain())
    lines = [pipe.read(5) for _ in range(1000)]
    assert lines == [b"%04d\n" % number for number in range(1000)]
    os.write(go, b"\0")
    assert pipe.read(6) == b"child\n"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stream.drain()


@pytest.mark.parametrize("opened_before", [0, 3])
def test_what_has_no_standard_error_writes_into_no_other_file(
    tmp_path: Path, opened_before: int
) -> None:
    program = (
        "import sys; from estat.server import log_stream;"
        f"files = [open(f'{tmp_path}/{{n}}', 'w') for n in range({opened_before})];"
        "log_stream.install();"
        f"files.append(open('{tmp_path}/later', 'w'));"
        "print('out'); print('err', file=sys.stderr);"
        "sys.exit(not log_stream.drain())"
    )
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(closed, check=False).returncode == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == dict.fromkeys([*map(str, range(opened_before)), "later"], "")
