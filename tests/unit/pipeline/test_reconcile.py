"""The books are corrected by what surely lies in the DLQ."""

import contextlib
import itertools
import os
import time

import pytest

from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import Row
from estat.disk import dlq_file
from estat.disk.dlq import PENDING
from estat.pipeline.reconcile import Reconciliation
from tests.support.parts import Parts, load
from tests.unit.batches import batch
from tests.unit.mortal_row import Cells, Killed


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


def counted_at_the_start(books, count, ahead_seconds=0.0):
    for number in range(count):
        books.write(seq=number + 1, ahead_seconds=ahead_seconds)
    books.page.adopted = totals, _ = books.dlq.inventory()
    books.ledger.adopt(totals.events, totals.files, totals.size_bytes)
    return books.dlq.scan(PENDING, 10**11).due


@pytest.mark.parametrize("ahead_seconds", [0, 3 * 3600])
def test_what_an_earlier_life_stored_after_it_was_counted_is_not_adopted(books, ahead_seconds):
    first, second = counted_at_the_start(books, 2, ahead_seconds)
    os.unlink(first.path)  # by a worker that outlived its arbiter
    books.reconciliation.first_led()
    assert books.terms.lost == 0
    assert books.terms.adopted == books.terms.in_dlq == second.events
    assert books.reconciliation.booked() == books.dlq.walk()


def test_a_leader_that_is_killed_while_it_disowns_leaves_it_to_the_next_or_has_done_it(tmp_path):
    left = set()
    for writes in itertools.count():
        books = Books(tmp_path / str(writes))
        first, second = counted_at_the_start(books, 2)
        os.unlink(first.path)
        books.page.rows[2] = row = Row(cells := Cells(books.page.rows[2].cells.tolist()))
        leader = Reconciliation(books.disk, Ledger(Metrics(row)), books.page)
        cells.writes_left = writes
        with contextlib.suppress(Killed):
            leader.first_led()
        done = cells.writes_left > 0
        cells.writes_left = 100
        Ledger(Metrics(row)).orphan()  # as the arbiter does when a worker has died
        left.add(books.terms.in_dlq)
        books.reconciliation.first_led()
        assert books.terms.lost == 0
        assert books.terms.adopted == books.terms.in_dlq == second.events
        if done:
            break
    assert left == {first.events + second.events, second.events}, "killed before and after"


def test_a_file_that_vanishes_once_we_lead_stays_visible_as_lost(books):
    (file,) = counted_at_the_start(books, 1)
    books.reconciliation.first_led()
    os.unlink(file.path)
    books.reconciliation.first_led()
    for books.now in (0, 60):
        books.reconciliation.found_empty(books.reconciliation.booked())
    assert books.terms.lost == file.events


@pytest.mark.parametrize("ahead_seconds", [0, 3 * 3600, -3 * 3600])
def test_a_file_that_was_written_after_the_start_is_none_of_the_adopted(books, ahead_seconds):
    gone, _ = counted_at_the_start(books, 2)
    # the clock may have stepped meanwhile
    size = books.write(seq=3, ahead_seconds=ahead_seconds)
    books.ledger.accept(gone.events)
    books.ledger.spill(gone.events, size)
    before = books.terms
    os.unlink(gone.path)  # by a worker that outlived its arbiter
    books.reconciliation.first_led()
    assert before.adopted - books.terms.adopted == gone.events
    assert books.terms.lost == 0
    assert books.reconciliation.booked() == books.dlq.walk()


def test_a_file_that_was_moved_meanwhile_is_still_one_of_the_adopted(books):
    (file,) = counted_at_the_start(books, 1)
    before = books.terms
    with books.dlq.claim(file) as claim:
        books.dlq.expire(claim, 1.0)
    books.reconciliation.first_led()
    assert books.terms == before


def test_what_was_dropped_before_anybody_led_is_not_disowned(books):
    dropped, stored, left = counted_at_the_start(books, 3)
    size = os.stat(dropped.path).st_size
    os.unlink(dropped.path)
    books.ledger.drop(dropped.events, size, "overflow")
    os.unlink(stored.path)  # by a worker that outlived its arbiter
    books.reconciliation.first_led()
    assert books.terms.lost == 0
    assert books.terms.adopted == dropped.events + left.events
    assert books.reconciliation.booked() == books.dlq.walk()
