"""The accounting is corrected by what surely lies in the DLQ."""

import os
import time

import pytest

from estat.disk import dlq_file
from tests.support.parts import Parts, load
from tests.unit.batches import batch


class Worker(Parts):
    """A worker's accounting and DLQ."""

    def __init__(self, path):
        super().__init__(load(path))
        self.dlq.create()

    def write(self, seq=1, ahead_seconds=0.0):
        """Write a file that nobody counts, by a clock that is ahead; return its size."""
        kept = batch(seq=seq)
        size = self.dlq.write(kept, dlq_file.pack(kept, "put_failed", ""))
        (entry,) = [e for e in self.dlq.every() if e.name == dlq_file.file_name(kept)]
        modified = time.time() + ahead_seconds
        os.utime(entry.path, (modified, modified))
        return size


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path)


def test_a_file_that_hides_behind_one_that_was_replayed_and_never_counted_is_found(worker):
    kept = batch()
    size = worker.write()
    worker.ledger.adopt(kept.events + 5, 1, size)
    worker.ledger.replay(5, size)
    assert worker.counted == (0, kept.events, 0)
    worker.compare(8)
    assert worker.terms.lost == 0, "it is there, and its events must not vanish"
    worker.compare(8)
    assert worker.counted == (1, kept.events, size)
    assert worker.terms.lost == 0


@pytest.mark.parametrize("ahead_seconds", [-1e6, -1, 5, 3 * 3600, 1e6])
def test_a_file_that_nobody_counts_is_adopted_whatever_its_time(worker, ahead_seconds):
    size = worker.write(ahead_seconds=ahead_seconds)
    worker.compare(8)
    assert worker.counted == (0, 0, 0), "its writer may be about to count it"
    worker.compare(8)
    assert worker.counted == (1, batch().events, size)
    assert (worker.terms.adopted, worker.terms.lost) == (batch().events, 0)


def test_a_file_is_not_adopted_while_the_disk_keeps_its_writer_waiting(worker):
    with worker.ledger.changing():
        size = worker.write()
        worker.compare(100)
        worker.ledger.accept(batch().events)
        worker.ledger.spill(batch().events, size)
    worker.compare()
    assert worker.counted == worker.dlq.walk() == (1, batch().events, size)
    assert (worker.terms.adopted, worker.terms.lost) == (0, 0)


def test_files_that_come_and_go_are_not_adopted(worker):
    for seq in range(1, 20):
        worker.write(seq=seq)
        worker.compare(4)
    assert worker.counted == (0, 0, 0)
    worker.compare(16)
    assert worker.counted == worker.dlq.walk()


def test_a_file_is_found_beside_others_that_come_and_are_counted(worker):
    size = worker.write()
    for seq in range(2, 20):
        worker.spill(batch(seq=seq))
        worker.compare(1)
    assert (worker.counted, worker.terms.adopted) == (worker.dlq.walk(), batch().events)
    assert worker.dlq.walk() == (19, 19 * batch().events, worker.counted[2])
    assert size


def test_files_that_somebody_took_away_are_told_as_lost(worker, caplog):
    worker.spill(batch())
    for entry in worker.dlq.every():
        os.unlink(entry.path)
    worker.compare()
    assert (worker.terms.in_dlq, worker.terms.lost) == (0, batch().events)
    (told,) = caplog.records
    assert (told.message, told.files, told.vanished) == ("dlq_recounted", 0, batch().events)


def test_a_look_at_many_files_is_taken_seldom(worker):
    walks = []
    walk = worker.dlq.walk

    def slow_walk():
        worker.now += 1
        walks.append(worker.now)
        return walk()

    worker.dlq.walk = slow_walk
    worker.compare(200)
    assert len(walks) <= 5
