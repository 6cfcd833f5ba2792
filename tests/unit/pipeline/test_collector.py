"""When a batch ends, and what the collector makes of the requests that wait."""

from collections import deque

import pytest

from estat.accounting import metrics
from estat.errors import Refused
from estat.events.gzip import gunzip
from estat.pipeline.collector import Batcher
from estat.pipeline.queue import Submission
from tests.support.lines import parse_lines
from tests.support.parts import Parts, load

HOUR, NEXT_HOUR = "dt=2025-11-13/hr=07", "dt=2025-11-13/hr=08"


def opened(events: int = 0, size: int = 0) -> Batcher:
    batcher = Batcher(max_events=10, max_bytes=1000)
    batcher.open(HOUR, now=100, max_age_seconds=60)
    if events:
        batcher.add(events, size)
    return batcher


def test_a_batch_takes_a_request_that_fits():
    assert opened(8, 500).takes(2, 500, HOUR)


def test_a_batch_ends_rather_than_exceed_its_count():
    assert not opened(8, 500).takes(3, 10, HOUR)


def test_a_batch_ends_rather_than_exceed_its_bytes():
    assert not opened(8, 500).takes(1, 501, HOUR)


def test_a_batch_ends_with_its_partition():
    assert not opened(1, 10).takes(1, 10, NEXT_HOUR)


def test_a_request_larger_than_a_batch_makes_one_of_its_own():
    batcher = opened()
    assert batcher.takes(25, 9999, HOUR)
    batcher.add(25, 9999)
    assert batcher.full


def test_a_batch_is_due_at_its_age():
    batcher = opened(1, 10)
    assert batcher.seconds_left(now=130) == 30
    assert batcher.seconds_left(now=161) == 0


def test_without_a_batch_nothing_is_due_and_nothing_taken():
    batcher = opened(1, 10)
    batcher.close()
    assert batcher.seconds_left(now=500) is None
    assert not batcher.takes(1, 1, HOUR)


class Worker(Parts):
    """A collector whose sealed batches can be looked at."""

    def __init__(self, root, **given):
        super().__init__(load(root, BATCH_SIZE="10", **given))
        self.dlq.create()
        self.dlq_path = root / "dlq"
        self.sealer = self
        self.sealed = []

    def submit(self, open_batch):
        self.sealed.append(parse_lines(gunzip(open_batch.seal(self.threads, self.counts).payload)))

    def collect(self, *sizes):
        """Take in requests of so many events, each event with its request's number."""
        bodies = [[b'{"request":%d}' % number] * size for number, size in enumerate(sizes)]
        submissions = [Submission(b',"body":', made) for made in bodies]
        waiting = deque(submissions)
        for submission in submissions:
            self.admission.expose(submission.size_bytes, files=1)
        while waiting:
            self.collector.collect(waiting)
        return submissions


@pytest.fixture
def worker(tmp_path):
    made = Worker(tmp_path)
    yield made
    made.journals.close()


def test_a_requests_events_are_never_split_over_two_batches(worker):
    worker.collect(4, 4, 4, 25, 3, 9)
    worker.collector.seal()
    requests = [[line["body"]["request"] for line in lines] for lines in worker.sealed]
    assert requests == [[0] * 4 + [1] * 4, [2] * 4, [3] * 25, [4] * 3, [5] * 9]


def test_numbers_are_given_in_the_order_of_requests_without_a_gap_over_all_batches(worker):
    worker.collect(4, 8, 1)
    worker.collector.seal()
    ids = [line["id"] for lines in worker.sealed for line in lines]
    (stream,) = worker.collector.streams
    assert ids == [f"{stream.name}-{number}" for number in range(1, 14)]


def test_with_receipts_each_request_knows_the_id_of_its_first_event(tmp_path):
    worker = Worker(tmp_path, RECEIPTS="true")
    submissions = worker.collect(4, 8, 1)
    worker.collector.seal()
    firsts = [lines[0]["id"] for lines in worker.sealed]
    stream = worker.collector.streams[-1].name
    assert [str(one.first) for one in submissions] == [f"{stream}-{n}" for n in (1, 5, 13)]
    assert firsts == [f"{stream}-1", f"{stream}-5"]
    worker.journals.close()


def test_what_is_acknowledged_is_in_the_journal_and_counted(worker):
    for submission in worker.collect(4, 2):
        submission.wait()
    assert worker.terms.accepted == worker.terms.pending == 6
    (journal,) = (worker.dlq_path / "journal").rglob("*.journal")
    assert journal.read_bytes().count(b'"body"') == 6


def test_a_group_that_the_disk_refuses_leaves_nothing_behind(worker):
    journals = worker.dlq_path / "journal"
    journals.write_bytes(b"")  # no directory can be made there
    (submission,) = worker.collect(4)
    with pytest.raises(Refused):
        submission.wait()
    assert worker.terms.accepted == 0
    assert worker.counts.row.cells[metrics.EXPOSED_BYTES] == 0
    journals.unlink()
    worker.collect(2)
    worker.collector.seal()
    ids = [line["id"].rpartition("-")[2] for lines in worker.sealed for line in lines]
    assert ids == ["1", "2"], "no number is left out"


def test_the_exposure_returns_to_zero_when_all_is_stored(tmp_path):
    worker = Parts(load(tmp_path, BATCH_SIZE="10"))
    worker.dlq.create()
    waiting = deque(Submission(b',"body":', [b"{}"] * size) for size in (4, 8, 3))
    for submission in waiting:
        worker.admission.expose(submission.size_bytes, files=1)
    sealed = []
    worker.sealer.submit = sealed.append
    while waiting:
        worker.collector.collect(waiting)
    worker.collector.seal()
    for open_batch in sealed:
        worker.sealer.seal(open_batch)
        worker.uploader.upload(worker.uploader._queue.get())
    assert worker.terms.accepted == worker.terms.stored == 15
    assert worker.counts.row.cells[metrics.EXPOSED_BYTES] == 0
    worker.journals.close()
