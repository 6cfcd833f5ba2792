"""What becomes of a batch that the store does not take, or that the disk does not take either."""

import gevent
import pytest

from estat.accounting import metrics
from estat.disk.dlq import PENDING
from estat.disk.journal import DIRECTORY
from estat.disk.journal_file import Header
from estat.errors import DiskError, StoreUnavailable
from estat.events import ids
from estat.pipeline.uploader import Upload
from tests.support.parts import Parts, load
from tests.unit.batches import STREAM, batch, lines

EVENTS = 10


class Away:
    """Stores that are away."""

    def get(self, bucket):
        raise StoreUnavailable("503")


class Worker(Parts):
    """An uploader, its queue, and journals of batches of ten events."""

    def __init__(self, root, **given):
        super().__init__(load(root, **given))
        self.directory = root / "dlq" / DIRECTORY / STREAM
        self.dlq.create()

    def accept(self, seq):
        """Return a batch of ten events that are accepted and in their journal."""
        first = EVENTS * (seq - 1) + 1
        numbers = range(first, first + EVENTS)
        made = batch(numbers, seq=seq, bucket=self.settings.raw_bucket)
        header = Header(made.bucket, made.key, ids.stem(made.key), STREAM, first, made.opened)
        journal = self.journals.open(header, seq)
        self.journals.append(journal, lines(numbers).splitlines(keepends=True))
        self.ledger.accept(EVENTS)
        self.admission.expose(len(made.payload), files=1)
        return Upload(made, journal)

    def leave(self, seq):
        """Leave a batch to its journal, as one that neither store nor disk took."""
        upload = self.accept(seq)
        self.admission.expose(-len(upload.batch.payload), files=-1)
        self.uploader._journals_left.append(upload.journal)

    def waiting(self):
        """Take what waits for an upload out of the queue."""
        queue = self.uploader._queue
        return [queue.get() for _ in range(queue.qsize())]

    def exposed(self):
        return self.counts.row.cells[metrics.EXPOSED_BYTES]

    def journals_on_disk(self):
        return list(self.directory.glob("*.journal"))


@pytest.fixture
def worker(tmp_path):
    made = Worker(tmp_path, S3_APP_RETRIES="0")
    yield made
    made.journals.close()


def firsts(uploads):
    return [upload.batch.first for upload in uploads]


def test_a_journal_that_can_not_be_read_is_an_error_once_and_hides_no_other(worker):
    for seq in (1, 2, 3):
        worker.leave(seq)
    bad = worker.directory / "000002.journal"
    good = bad.rename(bad.with_name("away"))
    bad.mkdir()
    with pytest.raises(DiskError, match="read"):
        worker.uploader.resume()
    assert firsts(worker.waiting()) == [1, 21]
    for _ in range(2):
        worker.uploader.resume()
        assert worker.waiting() == []
    bad.rmdir()
    good.rename(bad)
    worker.uploader.resume()
    assert firsts(worker.waiting()) == [11]


def test_a_stored_batch_leaves_neither_exposure_nor_journal(worker):
    worker.uploader.upload(worker.accept(1))
    assert (worker.terms.stored, worker.terms.pending) == (EVENTS, 0)
    assert worker.exposed() == 0
    assert worker.journals_on_disk() == []


def test_a_batch_that_the_store_does_not_take_is_in_the_dlq_before_its_journal_goes(worker):
    worker.stores = Away()
    upload = worker.accept(1)
    worker.uploader.upload(upload)
    (entry,) = worker.dlq.scan(PENDING, 10**11).due
    with worker.dlq.claim(entry) as claim:
        assert claim.read().payload == upload.batch.payload
    assert (worker.terms.in_dlq, worker.terms.pending) == (EVENTS, 0)
    assert worker.exposed() == 0
    assert worker.journals_on_disk() == []


def test_a_batch_that_finds_the_queue_full_goes_to_the_dlq_and_nobody_waits(tmp_path):
    worker = Worker(tmp_path, UPLOAD_QUEUE="1")
    with gevent.Timeout(20):
        for seq in (1, 2):
            worker.uploader.submit(worker.accept(seq))
    assert firsts(worker.waiting()) == [1]
    assert worker.terms.in_dlq == EVENTS
    worker.journals.close()


def test_a_batch_that_neither_store_nor_disk_takes_is_taken_up_again_from_its_journal(
    worker, tmp_path
):
    worker.stores = Away()
    area = tmp_path / "dlq" / PENDING
    area.rmdir()
    area.write_bytes(b"")  # no directory: nothing can be written there
    upload = worker.accept(1)
    worker.uploader.upload(upload)
    assert worker.admission.failing
    assert (worker.terms.pending, worker.exposed()) == (EVENTS, 0), "it is in its journal alone"
    assert len(worker.journals_on_disk()) == 1
    area.unlink()
    area.mkdir()
    worker.admission.refresh()
    worker.uploader.resume()
    (again,) = worker.waiting()
    assert again.batch.key == upload.batch.key
    assert worker.exposed() > 0
    worker.uploader.upload(again)
    assert (worker.terms.in_dlq, worker.terms.pending, worker.terms.lost) == (EVENTS, 0, 0)
    assert worker.exposed() == 0
    assert worker.journals_on_disk() == []
