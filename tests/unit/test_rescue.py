"""Batches that were left to their journals are taken up again, whatever lies beside them."""

from collections import deque
from types import SimpleNamespace

import pytest

from estat.accounting import metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.config import loading
from estat.disk.dlq import DeadLetterQueue
from estat.disk.journal import DIRECTORY, Journals
from estat.disk.journal_file import Header
from estat.errors import DiskError
from estat.events import ids
from estat.pipeline.admission import Admission
from estat.pipeline.breaker import Breaker
from estat.pipeline.delivery import Delivery
from estat.pipeline.spill import Spill
from estat.pipeline.uploader import Uploader
from estat.threads import Offload
from tests.unit.batches import STREAM, batch, lines


class Stranded:
    """An uploader, and journals whose batches could go neither to the store nor to the DLQ."""

    def __init__(self, root):
        page = metrics.page()
        self.counts, disk = Metrics(page.rows[1]), Offload(1)
        settings = loading.load({"RAW_BUCKET": "events", "DLQ_DIR": str(root)}, env_file="")
        self.directory = root / DIRECTORY / STREAM
        self.journals = Journals(str(root), settings.durability, self.counts)
        dlq, breaker, ledger = DeadLetterQueue(str(root)), Breaker(self.counts), Ledger(self.counts)
        admission = Admission(dlq, page, self.counts, disk, 10**12, drop_oldest=False)
        delivery = Delivery(SimpleNamespace(), "events", 1, self.counts, breaker)
        spill = Spill(dlq, self.journals, admission, ledger, disk)
        self.uploader = Uploader(
            delivery, breaker, spill, self.journals, ledger, admission, disk, self.counts, settings
        )

    def leave(self, seq):
        """Leave a batch of ten events to its journal."""
        key, first = batch(seq=seq).key, 10 * seq - 9
        header = Header("events", key, ids.stem(key), STREAM, first, 1763017800.0)
        journal = self.journals.open(header, seq)
        self.journals.append(journal, lines(range(first, first + 10)).splitlines(keepends=True))
        self.uploader._stranded.append(journal)

    def taken_up(self):
        """Return the batches that wait for an upload now, by their first event."""
        queue, found = self.uploader._queue, deque()
        while not queue.empty():
            found.append(queue.get().batch.first)
        return list(found)


@pytest.fixture
def stranded(tmp_path):
    made = Stranded(tmp_path)
    yield made
    made.journals.close()


def test_a_journal_that_can_not_be_read_is_an_error_once_and_hides_no_other(stranded):
    for seq in (1, 2, 3):
        stranded.leave(seq)
    bad = stranded.directory / "000002.journal"
    good = bad.rename(bad.with_name("away"))
    bad.mkdir()
    with pytest.raises(DiskError, match="read"):
        stranded.uploader.rescue()
    assert stranded.taken_up() == [1, 21]
    for _ in range(2):
        stranded.uploader.rescue()
        assert stranded.taken_up() == []
    bad.rmdir()
    good.rename(bad)
    stranded.uploader.rescue()
    assert stranded.taken_up() == [11]
