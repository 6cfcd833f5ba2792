"""What is refused is kept within its bounds, whoever sends what, and hurts nobody."""

import gzip
import logging

import gevent
import pytest

from estat.accounting import metrics
from estat.errors import Refused
from estat.pipeline.rejections import MAX_BYTES, TEXT_BYTES, Rejections
from tests.support.lines import gunzip_lines
from tests.support.parts import Parts, load

#: What JSON needs most room for: six bytes of each.
WORST = b"\x00" * 100_000


class Kept(Parts):
    """A worker's part that keeps what was refused, in a directory."""

    def __init__(self, root):
        super().__init__(load(root, REJECTED_PREFIX="rejected"))
        self.root = root / "store"
        self.dlq.create()
        self.rejections = Rejections(self.delivery, self.settings, self.counts, self.threads)

    def keep(self, source=b"x", index=None):
        refused = Refused("invalid_json", "because", source)
        self.rejections.keep(refused, index, "web", "203.0.113.0")

    def paths(self):
        return sorted(self.root.glob("rejected/dt=*/hr=*/*.jsonl.gz"))

    def objects(self):
        """Return the lines of each object."""
        return [gunzip_lines(path.read_bytes()) for path in self.paths()]

    @property
    def counted(self):
        """How many are kept, and not for which reason."""
        cells = self.counts.row.cells
        not_kept = {name: cells[at] for name, at in metrics.REJECTED_NOT_KEPT.items()}
        return cells[metrics.REJECTED_KEPT], not_kept


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path)


def test_a_line_says_who_sent_what_and_why_it_was_refused(kept):
    kept.keep(b'{"a":', index=3)
    kept.rejections.write()
    (((line,)),) = kept.objects()
    assert line.pop("ts") > 1_700_000_000
    assert line == {
        "reason": "invalid_json",
        "description": "because",
        "index": 3,
        "write_key": "web",
        "ip": "203.0.113.0",
        "bytes": 5,
        "text": '{"a":',
    }


@pytest.mark.parametrize(
    ("source", "text", "size_bytes"),
    [
        (b"", "", 0),
        (b"a\xffb\x00\xed\xa0\x80", "a\ufffdb\0\ufffd\ufffd\ufffd", 7),
        (b"x" * TEXT_BYTES + b"y", "x" * TEXT_BYTES, TEXT_BYTES + 1),
        ("é".encode() * TEXT_BYTES, "é" * (TEXT_BYTES // 2), 2 * TEXT_BYTES),
        (b"x" + "é".encode() * TEXT_BYTES, "x" + "é" * (TEXT_BYTES // 2 - 1), 2 * TEXT_BYTES + 1),
        (b"x" * (TEXT_BYTES - 1) + b"\xc3", "x" * (TEXT_BYTES - 1) + "\ufffd", TEXT_BYTES),
    ],
)
def test_of_a_text_the_first_4_kib_are_kept_as_valid_utf_8(source, text, size_bytes, kept):
    kept.keep(source)
    kept.rejections.write()
    (((line,)),) = kept.objects()
    assert (line["text"], line["bytes"]) == (text, size_bytes)


@pytest.mark.parametrize("source", [WORST, b"", b"\xff" * 5000, b"x" * TEXT_BYTES])
def test_a_flood_is_kept_up_to_a_bound_and_the_rest_counted(source, kept):
    rounds, each = 3, 30_000
    for _ in range(rounds):
        for _ in range(each):
            kept.keep(source)
        kept.rejections.write()
    assert len(kept.paths()) == rounds
    for path in kept.paths():
        assert len(gzip.decompress(path.read_bytes())) < MAX_BYTES + 7 * TEXT_BYTES
    stored = sum(map(len, kept.objects()))
    assert kept.counted == (stored, {"limit": rounds * each - stored, "store": 0})


def test_where_the_store_is_down_what_waits_is_dropped_by_count_and_nothing_else_happens(
    kept, caplog
):
    kept.root.write_text("no directory")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            kept.keep()
            kept.keep()
            kept.rejections.write()
    assert kept.counted == (0, {"limit": 0, "store": 6})
    assert [record.getMessage() for record in caplog.records] == ["rejected_not_kept"]
    assert not kept.delivery.breaker.open
    assert not list(kept.dlq.every())
    kept.root.unlink()
    kept.keep()
    kept.rejections.write()
    assert kept.counted == (1, {"limit": 0, "store": 6})


def test_whatever_the_store_raises_the_loop_goes_on(kept, monkeypatch):
    monkeypatch.setattr(kept.delivery, "put_file", lambda *_: 1 / 0)
    kept.keep()
    kept.rejections.write()
    assert kept.counted == (0, {"limit": 0, "store": 1})


def test_at_the_end_what_waits_is_written_and_without_anything_no_object_is(kept):
    loop = gevent.spawn(kept.rejections.run)
    kept.keep()
    kept.rejections.end()
    loop.get(timeout=20)
    kept.rejections.write()
    assert list(map(len, kept.objects())) == [1]
