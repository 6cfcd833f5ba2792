"""The books are corrected by what surely lies in the DLQ."""

import os
import time

import pytest

from estat.disk import dlq_file
from estat.disk.dlq import PENDING
from estat.pipeline.reconcile import Reconciliation
from tests.support.parts import Parts, load
from tests.unit.batches import batch


class Books(Parts):
    """A worker's accounting and DLQ, by a clock of its own."""

    def __init__(self, path):
        super().__init__(load(path))
        self.dlq.create()
        self.now = 0.0
        self.reconciliation = Reconciliation(self.disk, self.ledger, self.page, lambda: self.now)

    def write(self, seq=1, ahead_seconds=0.0):
        """Write a file that nobody enters, by a clock that is ahead; return its size."""
        kept = batch(seq=seq)
        size = self.dlq.write(kept, dlq_file.pack(kept, "put_failed", ""))
        (entry,) = [e for e in self.dlq.every() if e.name == dlq_file.file_name(kept)]
        modified = time.time() + ahead_seconds
        os.utime(entry.path, (modified, modified))
        return size

    def look(self, seconds):
        """Look at once, and again and again for so long."""
        until = self.now + seconds
        while self.now <= until:
            self.reconciliation.booked_empty(self.reconciliation.booked())
            self.now += 1


@pytest.fixture
def books(tmp_path):
    return Books(tmp_path)


def test_a_file_seen_a_moment_ago_takes_nothing_out_of_books_that_name_no_files(books):
    kept = batch()
    size = books.write()
    # a file that was replayed and never entered has taken another one's place
    books.ledger.adopt(kept.events + 5, 1, size)
    books.ledger.replay(5, size)
    assert books.reconciliation.booked() == (0, kept.events, 0)
    books.look(8)
    assert books.terms.lost == 0, "it is there, and its events must not vanish"
    books.look(8)
    assert books.reconciliation.booked() == (1, kept.events, size)
    assert books.terms.lost == 0


@pytest.mark.parametrize("ahead_seconds", [-1e6, -1, 5, 3 * 3600, 1e6])
def test_a_file_that_nobody_enters_is_adopted_whatever_its_time(books, ahead_seconds):
    size = books.write(ahead_seconds=ahead_seconds)
    books.look(8)
    assert books.reconciliation.booked() == (0, 0, 0), "its writer may be about to enter it"
    books.look(8)
    assert books.reconciliation.booked() == (1, batch().events, size)
    assert (books.terms.adopted, books.terms.lost) == (batch().events, 0)


def test_files_that_come_and_go_are_not_adopted(books):
    for seq in range(1, 20):
        books.write(seq=seq)
        books.look(4)
    assert books.reconciliation.booked() == (0, 0, 0)
    books.look(16)
    assert books.reconciliation.booked() == books.dlq.walk()


def test_a_leader_that_follows_another_finds_what_that_one_did_not_enter(books):
    size = books.write()
    books.ledger.accept(5)
    books.ledger.spill(5, 100)  # and replayed, and the file is gone: not entered
    for books.now in range(20):
        books.reconciliation.first_led(books.reconciliation.booked())
    assert books.reconciliation.booked() == books.dlq.walk() == (1, batch().events, size)


def test_a_leader_that_follows_another_compares_no_more_once_both_agree(books):
    for books.now in range(20):
        books.reconciliation.first_led(books.reconciliation.booked())
    books.write()
    walks = []
    books.dlq.walk = lambda: walks.append(1)
    for books.now in range(20, 60):
        books.reconciliation.first_led((1, 5, 100))
    assert walks == []


def test_nothing_is_corrected_while_a_slot_comes_from_a_dead_server(books, tmp_path):
    books.write()
    (slot,) = os.listdir(os.path.join(books.dlq.root, PENDING))
    path = os.path.join(books.dlq.root, PENDING, slot)
    hidden = os.path.join(books.dlq.root, PENDING, f".{slot}.1")
    os.rename(path, hidden)
    books.ledger.adopt_slot(batch().events, 1, 100, 1)
    for books.now in range(60):
        books.reconciliation.first_led(books.reconciliation.booked())
        books.reconciliation.found_empty(books.reconciliation.booked())
    assert books.reconciliation.booked() == (1, batch().events, 100)
    assert books.terms.lost == 0
