"""The books are corrected by what surely lies in the DLQ."""

import os

import pytest

from estat import dlq_file, ledger, metrics
from estat.dlq import PENDING, DeadLetterQueue
from estat.ledger import Ledger
from estat.metrics import Metrics
from estat.offload import Offload
from estat.recount import Recount
from tests.unit.batches import batch


class Books:
    """A worker's books and DLQ."""

    def __init__(self, path):
        self.page = metrics.page()
        self.ledger = Ledger(Metrics(self.page.rows[1]))
        self.dlq = DeadLetterQueue(str(path))
        self.dlq.create()
        self.recount = Recount(self.dlq, self.ledger, self.page, Offload(1))

    def look(self, monkeypatch):
        """Look twice; each time is due."""
        for _ in range(2):
            monkeypatch.setattr(self.recount, "_look_at", 0.0)
            self.recount.booked_empty(self.recount.booked())

    @property
    def terms(self):
        return ledger.terms(self.page)


@pytest.fixture
def books(tmp_path):
    return Books(tmp_path)


def test_a_young_file_takes_nothing_out_of_books_that_name_no_files(books, monkeypatch):
    kept = batch()
    size = books.dlq.write(kept, dlq_file.pack(kept, "put_failed", ""))
    # a file that was replayed and never entered has taken another one's place
    books.ledger.adopt(kept.events + 5, 1, size)
    books.ledger.replay(5, size)
    assert books.recount.booked() == (0, kept.events, 0)
    books.look(monkeypatch)
    assert books.terms.lost == 0, "it is there, and its events must not vanish"

    (entry,) = books.dlq.scan(PENDING, 10**11).due
    os.utime(entry.path, (1, 1))
    books.look(monkeypatch)
    assert books.recount.booked() == (1, kept.events, size)
    assert books.terms.lost == 0


def test_an_old_file_that_nobody_entered_is_adopted(books, monkeypatch):
    kept = batch()
    size = books.dlq.write(kept, dlq_file.pack(kept, "put_failed", ""))
    books.look(monkeypatch)
    assert books.recount.booked() == (0, 0, 0), "its writer may be about to enter it"
    (entry,) = books.dlq.scan(PENDING, 10**11).due
    os.utime(entry.path, (1, 1))
    books.look(monkeypatch)
    assert books.recount.booked() == (1, kept.events, size)
    assert (books.terms.adopted, books.terms.lost) == (kept.events, 0)
