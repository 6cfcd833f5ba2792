"""What a replay leaves in the accounting when it dies."""

import errno
import os
import time
from pathlib import Path

import pytest
from gevent import GreenletExit

from estat.accounting import ledger, metrics
from estat.disk import dlq_file
from estat.disk.dlq import PENDING, QUARANTINE, SCAN_LIMIT
from estat.errors import ObjectRefused, StoreDenied
from tests.support import forged
from tests.support.parts import Parts, load
from tests.unit.batches import batch

LATER = 10**11


class Died(GreenletExit):
    """The process is gone."""


class Worker(Parts):
    """A worker that replays, and its DLQ and store."""

    def __init__(self, path, page, slot, stores=None):
        super().__init__(load(path), page, slot)
        if stores:
            self.stores = stores
        self.dlq.create()

    @property
    def bucket(self):
        return self.settings.raw_bucket

    def replay(self):
        for entry in self.dlq.scan(PENDING, LATER).due:
            self.replayer.replay(entry)


@pytest.mark.parametrize("late", [False, True])
def test_a_replay_that_dies_at_its_last_step_leaves_books_that_close(tmp_path, monkeypatch, late):
    page = metrics.page()
    worker = Worker(tmp_path, page, 1)
    kept = batch(bucket=worker.bucket)
    worker.spill(kept)

    def die(path):
        if late or path != entry.path:
            unlink(path)
        if path == entry.path:
            raise Died

    (entry,) = worker.dlq.scan(PENDING, LATER).due
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", die)
    with pytest.raises(Died):
        worker.replay()
    monkeypatch.undo()

    next_worker = Worker(tmp_path, page, 2)
    next_worker.replay()
    next_worker.compare()
    terms = ledger.terms(page)
    assert (terms.in_dlq, terms.lost) == (0, 0)


class Denied:
    """Stores that are refused."""

    def __init__(self, operation):
        self._operation = operation

    def get(self, bucket):
        raise StoreDenied("no", self._operation)


@pytest.mark.parametrize(
    ("operation", "is_due"),
    [("AssumeRole", True), ("AssumeRoleWithWebIdentity", True), ("PutObject", False)],
)
def test_a_file_of_another_bucket_is_put_off_only_if_that_bucket_refused_it(
    tmp_path, operation, is_due
):
    worker = Worker(tmp_path, metrics.page(), 1, Denied(operation))
    kept = batch(bucket="earlier")
    worker.dlq.write(kept, dlq_file.pack(kept, "put_failed", ""))
    worker.replay()
    assert bool(worker.dlq.scan(PENDING, time.time()).due) == is_due


class Refusing:
    """A bucket that refuses the objects of which ``refuses`` is true."""

    def __init__(self):
        self.refuses = lambda key: False
        self.keys = []

    def get(self, bucket):
        return self

    def head(self, key):
        return None

    def put(self, key, *_):
        if self.refuses(key):
            raise ObjectRefused("400", "PutObject", "InvalidRequest")
        self.keys.append(key)


@pytest.fixture
def refusing(tmp_path):
    worker = Worker(tmp_path, metrics.page(), 1, Refusing())
    kept = [batch(bucket=worker.bucket, seq=seq, opened=time.time()) for seq in range(1, 10)]
    return worker, kept


def due(worker):
    return [entry.name for entry in worker.dlq.scan(PENDING, time.time()).due]


def test_a_file_that_is_refused_while_nothing_is_stored_stays_due(refusing):
    worker, kept = refusing
    worker.stores.refuses = lambda _: True
    for one in kept:
        worker.spill(one)
    for _ in range(20):
        worker.replayer.turn()
    assert len(due(worker)) == len(kept)
    worker.stores.refuses = lambda _: False
    worker.replayer.turn()
    assert len(worker.stores.keys) == len(kept)
    assert worker.dlq.walk() == (0, 0, 0)
    assert ledger.terms(worker.page).lost == 0


def test_a_file_that_is_refused_while_others_are_stored_is_put_off_until_an_outage_has_ended(
    refusing,
):
    worker, (bad, *good) = refusing
    worker.stores.refuses = lambda key: key == bad.key
    worker.spill(bad)
    for number, one in enumerate(good):
        if number < 3:
            assert due(worker), "it has not failed three times"
        worker.spill(one)  # which may be stored before the bad one fails, or after that
        worker.replayer.turn()
    assert worker.stores.keys == [one.key for one in good]
    assert due(worker) == []

    worker.stores.refuses = lambda _: False
    worker.replayer.turn()
    assert len(worker.stores.keys) == len(good), "its hour has not come"
    worker.replayer.nudge()
    worker.replayer.turn()
    assert worker.stores.keys[-1] == bad.key
    assert worker.dlq.walk() == (0, 0, 0)
    assert ledger.terms(worker.page).lost == 0


def test_files_that_are_all_too_old_are_stored_as_soon_as_the_store_is_back(refusing):
    worker, _ = refusing
    worker.stores.refuses = lambda _: True
    for seq in range(1, 6):
        worker.spill(batch(bucket=worker.bucket, seq=seq))
    for _ in range(3):
        worker.replayer.turn()
    assert due(worker) == [], "they are with the expired ones"
    worker.stores.refuses = lambda _: False
    worker.replayer.turn()
    assert len(worker.stores.keys) == 5
    assert worker.dlq.walk() == (0, 0, 0)


def test_an_unreadable_file_that_is_refused_hides_no_other_one(refusing):
    worker, _ = refusing
    for name in ("bad1", "bad2", "good"):
        size = worker.dlq.put_aside(f"1763017800_web-1_{name}", 0, name.encode())
        worker.ledger.adopt(0, 1, size)
    tried = []
    worker.stores.refuses = lambda key: tried.append(key) or "_bad" in key
    for _ in range(3):
        worker.replayer.turn()
    assert len(worker.stores.keys) == 1
    assert "_good." in worker.stores.keys[0]
    assert len(tried) <= 4, "one failure a turn"
    assert worker.dlq.walk().files == 2


def read_only(monkeypatch, path):
    """Let a file stay that is to be removed."""
    unlink = os.unlink

    def refuse(other):
        if other == path:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(other)

    monkeypatch.setattr(os, "unlink", refuse)


def test_a_file_that_can_not_be_removed_is_stored_and_counted_once(tmp_path, monkeypatch):
    page = metrics.page()
    worker = Worker(tmp_path, page, 1)
    kept = batch(bucket=worker.bucket)
    worker.spill(kept)
    (entry,) = worker.dlq.scan(PENDING, LATER).due
    read_only(monkeypatch, entry.path)
    for _ in range(3):
        worker.replay()
    terms = ledger.terms(page)
    assert (terms.stored, terms.adopted, terms.in_dlq) == (kept.events,) * 3
    monkeypatch.undo()
    worker.replay()
    terms = ledger.terms(page)
    assert (terms.stored, terms.adopted, terms.in_dlq, terms.lost) == (kept.events, 0, 0, 0)
    assert worker.counted == worker.dlq.walk() == (0, 0, 0)


def test_an_unreadable_file_that_can_not_be_removed_is_dropped_once_and_hides_nothing(
    tmp_path, monkeypatch
):
    worker = Worker(tmp_path, metrics.page(), 1)
    size = worker.dlq.put_aside(batch().name + "-bad0", 5, b"damaged")
    worker.ledger.adopt(5, 1, size)
    (entry,) = worker.dlq.scan(QUARANTINE, LATER).due
    read_only(monkeypatch, entry.path)
    for seq in (1, 2, 3):
        worker.spill(batch(seq=seq, bucket=worker.bucket, opened=time.time()))
        worker.replayer.turn()
    terms = worker.terms
    assert (terms.stored, terms.dropped, terms.adopted, terms.in_dlq) == (30, 5, 10, 5)
    monkeypatch.undo()
    worker.spill(batch(seq=4, bucket=worker.bucket, opened=time.time()))
    worker.replayer.turn()
    terms = worker.terms
    assert (terms.stored, terms.dropped, terms.adopted, terms.lost) == (40, 5, 5, 0)
    assert worker.counted == worker.dlq.walk() == (0, 0, 0)


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path, metrics.page(), 1)


def adopted(worker, seq, data=None, **given):
    """Put a file into the DLQ as a previous run left it; return its path."""
    made = batch(range(1, 3), seq=seq, opened=1763000000.0, **given)
    size = worker.dlq.write(made, [data] if data else dlq_file.pack(made, "put_failed", ""))
    worker.ledger.adopt(made.events, 1, size)
    (path,) = Path(worker.dlq.root, PENDING).rglob(dlq_file.file_name(made))
    return path


def later_version(worker, seq):
    made = batch(range(1, 3), seq=seq, opened=1763000000.0, bucket=worker.bucket)
    return adopted(worker, seq, forged.dlq_bytes(made, estat_dlq=2))


def aside(worker):
    row = worker.counts.row
    return {
        reason: row.cells[cell] for reason, cell in metrics.SET_ASIDE.items() if row.cells[cell]
    }


def test_files_that_are_set_aside_stay_where_they_are_and_hide_nothing(worker, tmp_path):
    elsewhere = f"file:{tmp_path}/elsewhere"
    paths = [adopted(worker, seq, bucket=elsewhere) for seq in range(1, SCAN_LIMIT + 2)]
    paths += [later_version(worker, seq) for seq in range(2001, 2003)]
    contents = [path.read_bytes() for path in paths]
    adopted(worker, 9999, bucket=worker.bucket)
    for _ in range(4):
        worker.replayer.turn()
    assert [path.read_bytes() for path in paths] == contents
    terms = worker.terms
    assert (terms.stored, terms.in_dlq, terms.lost) == (2, 0, 0)
    assert aside(worker) == {"not_ours": 2 * (SCAN_LIMIT + 1), "later_version": 4}
    assert worker.counted == worker.dlq.walk()
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_set_aside_is_told_and_counted_again_by_the_next_leader(worker, tmp_path, caplog):
    path = later_version(worker, 1)
    content = path.read_bytes()
    for slot in (1, 2):
        leader = Worker(tmp_path, worker.page, slot)
        for _ in range(5):
            leader.replayer.turn()
        assert aside(leader) == {"later_version": 2}
        assert (leader.terms.set_aside, leader.terms.in_dlq, leader.terms.lost) == (2, 0, 0)
        metrics.forget_process(leader.counts.row)
    assert path.read_bytes() == content
    told = [record.reason for record in caplog.records if record.message == "dlq_file_set_aside"]
    assert told == ["later_version"] * 2


def test_a_file_that_nobody_counted_is_found_beside_those_that_are_set_aside(worker):
    later_version(worker, 1)
    worker.replayer.turn()
    made = batch(bucket=worker.bucket)
    worker.dlq.write(made, dlq_file.pack(made, "put_failed", ""))
    worker.compare()
    for _ in range(2):
        worker.replayer.turn()  # it is old, and so expires first
    terms = worker.terms
    assert (terms.stored, terms.adopted, terms.set_aside, terms.lost) == (10, 12, 2, 0)


def test_a_file_that_was_set_aside_and_is_taken_away_hides_no_later_one(worker):
    path = later_version(worker, 1)
    worker.replayer.turn()
    path.unlink()
    worker.compare()
    assert aside(worker) == {}
    worker.spill(batch(bucket=worker.bucket, opened=time.time()))
    worker.replayer.turn()
    terms = worker.terms
    assert (terms.stored, terms.in_dlq, terms.set_aside, terms.lost) == (10, 0, 0, 2)


def test_a_full_dlq_drops_none_of_what_is_set_aside(worker, tmp_path):
    paths = [later_version(worker, seq) for seq in range(1, SCAN_LIMIT + 2)]
    paths.append(adopted(worker, 2001, bucket=f"file:{tmp_path}/elsewhere"))
    mine = adopted(worker, 9999, bucket=worker.bucket)
    broken = adopted(worker, 9998, b"damaged", bucket=worker.bucket)
    for path in (broken, mine):
        with worker.dlq.oldest() as claim:
            assert claim.entry.path == str(path)
            claim.remove()
    assert worker.dlq.oldest() is None
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_what_can_not_be_put_off_or_expired_for_want_of_room_is_replayed(
    worker, monkeypatch, error
):
    for seq in (1, 2):
        adopted(worker, seq, bucket=worker.bucket)

    mkdir = os.mkdir

    def full(path, mode=0o777):
        if path.startswith(worker.dlq.root):
            raise OSError(error, os.strerror(error))
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", full)
    worker.replayer.turn()
    assert (worker.terms.stored, worker.terms.in_dlq, worker.terms.lost) == (4, 0, 0)
    assert worker.dlq.walk() == (0, 0, 0)


def test_an_old_file_that_can_not_be_read_neither_hides_others_nor_closes_admission(
    worker, monkeypatch
):
    bad = adopted(worker, 1, bucket=worker.bucket)
    adopted(worker, 2, bucket=worker.bucket)
    inode, pread = bad.stat().st_ino, os.pread

    def fails(descriptor, size, offset):
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", fails)
    for _ in range(3):
        worker.replayer.turn()
    assert (worker.terms.stored, worker.terms.in_dlq, worker.terms.lost) == (2, 2, 0)
    assert not worker.admission.failing
