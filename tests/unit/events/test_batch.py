"""A batch that grows while its pieces are compressed in a thread."""

import pytest

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.disk.journal_file import Header
from estat.events.gzip import gunzip
from estat.pipeline.open_batch import OpenBatch
from estat.threads import Offload
from tests.unit.batches import STREAM, lines

HEADER = Header("events", "raw/x_1.jsonl.gz", "x_1", STREAM, 1, 1763017800.0)
BIG = lines(range(1, 3001)).splitlines(keepends=True)


@pytest.fixture
def threads():
    return Offload(2)


@pytest.fixture
def counts():
    return Metrics(metrics.page().rows[1])


def grown(threads, settle):
    batch = OpenBatch(HEADER)
    for start in range(0, 3000, 1000):
        # as many bytes as make a piece worth the hop, whatever the lines are
        batch.add(BIG[start : start + 1000], 200_000, 1763017800.0 + start)
        batch.compress(threads)
        if settle:
            batch._piece.get()
    return batch


def test_all_lines_are_in_the_payload_in_order_however_the_pieces_fell(threads, counts):
    for settle in (True, False):
        sealed = grown(threads, settle).seal(threads, counts)
        assert gunzip(sealed.payload) == b"".join(BIG)
        assert (sealed.first, sealed.last, sealed.events) == (1, 3000, 3000)


def test_events_are_counted_by_the_second_for_the_lag(threads, counts):
    sealed = grown(threads, settle=False).seal(threads, counts)
    assert sealed.accepted_at == ((1763017800, 1000), (1763018800, 1000), (1763019800, 1000))


def test_a_piece_that_fails_is_an_error_and_never_a_smaller_payload(threads, counts):
    class Broken:
        seconds = 0.0

        def feed(self, lines):
            raise MemoryError

    def fail():
        batch = OpenBatch(HEADER)
        batch._encoder = Broken()
        batch.add(BIG, 200_000, 1763017800.0)
        batch.compress(threads)
        batch._piece._pending.wait(5)
        batch.compress(threads)

    with pytest.raises(MemoryError):
        fail()
