"""Journals on a real directory, also where the disk refuses what is written to them."""

import errno
import os
import resource
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gevent
import pytest

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.config.durability import Durability
from estat.disk import directory_lock, files, journal_file
from estat.disk.directory_lock import DirectoryLock
from estat.disk.journal import DIRECTORY, Journals
from estat.disk.journal_file import Header
from estat.errors import DiskError
from estat.events import ids
from tests.unit.batches import STREAM, batch, lines

KEY = batch().key
HEADER = Header("events", KEY, ids.stem(KEY), STREAM, first=1, opened=1763017800.0)

EITHER = pytest.mark.parametrize("durability", ["journal", "fsync"])


@pytest.fixture
def durability():
    return "journal"


@pytest.fixture
def row():
    return metrics.page().rows[1]


@pytest.fixture
def journals(tmp_path, durability, row):
    made = Journals(str(tmp_path), Durability(durability), Metrics(row))
    yield made
    made.close()


@pytest.fixture
def journal(journals):
    """Return a journal that has taken three events."""
    made = journals.open(HEADER, 1)
    journals.append(made, split(range(1, 4)))
    return made


def path_of(tmp_path, seq=1):
    return Path(tmp_path, DIRECTORY, STREAM, f"{seq:06d}.journal")


def split(numbers):
    return lines(numbers).splitlines(keepends=True)


def kept(path):
    """Return the lines that would be recovered from a file."""
    data = path.read_bytes()
    return b"".join(data[group.start : group.end] for group in journal_file.parse(data).groups)


@contextmanager
def files_at_most(size_bytes):
    """Let no file grow beyond a size: a write ends there, and the next one fails (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refused(journals, journal, numbers, room_bytes):
    """Append a group for which there is not enough room; return the error."""
    with files_at_most(journal.size_bytes + room_bytes), pytest.raises(DiskError) as raised:
        journals.append(journal, split(numbers))
    return raised.value


def in_doubt(journals, journal, numbers):
    """Append a group to a file that takes nothing and can't be cut; half of it is written."""
    with open(journal._path, "ab") as file, open("/dev/full", "wb") as full:
        file.write(lines(numbers)[:50])
        os.dup2(full.fileno(), journal._descriptor)
    with pytest.raises(DiskError) as raised:
        journals.append(journal, split(numbers))
    return raised.value


@EITHER
def test_what_append_has_taken_is_in_the_file(journals, tmp_path):
    journal = journals.open(HEADER, 1)
    for numbers in (range(1, 4), range(4, 6)):
        journals.append(journal, split(numbers))
        assert kept(path_of(tmp_path)) == lines(range(1, numbers[-1] + 1))


@EITHER
def test_a_sealed_journal_says_so_and_knows_its_header(journals, journal, tmp_path):
    journals.seal(journal, 3)
    content = journal_file.parse(path_of(tmp_path).read_bytes())
    assert (content.header, content.sealed, content.bad) == (HEADER, True, [])


def test_a_group_is_synced_before_append_returns_and_each_new_directory_before_that(
    tmp_path, row, monkeypatch
):
    synced = []
    for name in ("fsync", "fdatasync"):
        sync = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda fd, sync=sync: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or sync(fd),
        )
    journals = Journals(str(tmp_path), Durability.FSYNC, Metrics(row))
    journal = journals.open(HEADER, 1)
    path = path_of(tmp_path)
    assert synced[-2:] == [str(path), str(path.parent)]
    assert {str(tmp_path), str(path.parent.parent)} <= set(synced)  # for their new entries
    synced.clear()
    journals.append(journal, split(range(1, 4)))
    assert synced == [str(path)]
    journals.close()


@pytest.mark.parametrize("room_bytes", [0, 1, 100, 200])
@EITHER
def test_a_group_that_fits_only_in_part_leaves_nothing_behind(
    journals, journal, tmp_path, durability, room_bytes
):
    before = path_of(tmp_path).read_bytes()
    error = refused(journals, journal, range(4, 9), room_bytes)
    assert error.errno == errno.EFBIG  # as what it is, also where a part was written
    assert path_of(tmp_path).read_bytes() == before
    assert not journal.in_doubt


@EITHER
def test_a_failed_append_is_the_last_one_of_its_file(journals, journal, tmp_path):
    before = path_of(tmp_path).read_bytes()
    refused(journals, journal, range(4, 9), 10)
    journals.seal(journal, 3)
    assert path_of(tmp_path).read_bytes() == journal.content() == before


@pytest.mark.parametrize("durability", ["fsync"])
def test_a_group_that_could_not_be_synced_is_cut_off_and_its_file_never_synced_again(
    journals, journal, tmp_path, monkeypatch
):
    calls = []

    def fail(descriptor):
        calls.append(descriptor)
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(DiskError, match="append"):
        journals.append(journal, split(range(4, 6)))
    monkeypatch.setattr(os, "fsync", fail)
    journals.seal(journal, 3)
    assert kept(path_of(tmp_path)) == lines(range(1, 4))
    assert len(calls) == 1


def test_the_numbers_of_a_group_that_was_cut_off_may_be_used_again(journals):
    journal = journals.open(HEADER, 1)
    refused(journals, journal, range(1, 3), 10)
    assert journals.trusted(journal)


@pytest.mark.parametrize("durability", ["fsync"])
def test_a_cut_that_power_loss_may_undo_is_not_trusted(journals):
    journal = journals.open(HEADER, 1)
    refused(journals, journal, range(1, 3), 10)
    assert not journal.in_doubt
    assert not journals.trusted(journal)


@EITHER
def test_a_group_that_could_not_be_cut_off_is_in_doubt_and_counted(journals, journal, row):
    assert in_doubt(journals, journal, range(4, 9)).errno == errno.ENOSPC
    assert journal.in_doubt
    assert not journals.trusted(journal)
    assert row.cells[metrics.IN_DOUBT] == 5


def test_what_is_in_doubt_is_never_given_out_as_content(journals, journal, tmp_path):
    before = path_of(tmp_path).read_bytes()
    in_doubt(journals, journal, range(4, 9))
    assert path_of(tmp_path).read_bytes() != before
    assert journal.content() == before


def test_what_is_in_doubt_is_cut_off_as_soon_as_the_disk_allows(journals, journal, tmp_path):
    before = path_of(tmp_path).read_bytes()
    in_doubt(journals, journal, range(4, 9))
    journals.mend()
    assert path_of(tmp_path).read_bytes() == before
    assert journals.trusted(journal)


def test_a_cut_that_fails_again_is_an_error_and_stays_to_be_done(journals, journal, tmp_path):
    before = path_of(tmp_path).read_bytes()
    in_doubt(journals, journal, range(4, 9))
    away = path_of(tmp_path).rename(tmp_path / "away")
    path_of(tmp_path).mkdir()  # which truncate refuses
    for _ in range(2):
        with pytest.raises(DiskError, match="truncate"):
            journals.mend()
    assert journal.in_doubt
    path_of(tmp_path).rmdir()
    away.rename(path_of(tmp_path))
    journals.mend()
    assert path_of(tmp_path).read_bytes() == before


def test_a_journal_that_goes_needs_no_cut_even_while_another_one_is_being_cut(journals, tmp_path):
    both = [journals.open(HEADER, seq) for seq in (1, 2)]
    for journal in both:
        journals.append(journal, split(range(1, 4)))
        in_doubt(journals, journal, range(4, 9))
    mending = gevent.spawn(journals.mend)
    finishing = gevent.spawn(journals.finish, both[1])
    gevent.joinall([mending, finishing], timeout=10)
    mending.get(block=False)
    assert [path_of(tmp_path, seq).exists() for seq in (1, 2)] == [True, False]


def test_a_finished_journal_that_can_not_be_deleted_is_tried_again(journals, tmp_path, row):
    journal = journals.open(HEADER, 1)
    size = journal.size_bytes
    path_of(tmp_path).unlink()
    path_of(tmp_path).mkdir()  # which unlink refuses
    journals.finish(journal)
    with pytest.raises(DiskError, match="unlink"):
        journals.mend()
    assert row.cells[metrics.JOURNAL_BYTES] == size
    path_of(tmp_path).rmdir()
    journals.mend()
    assert row.cells[metrics.JOURNAL_BYTES] == 0


def test_a_finished_journal_that_is_away_is_deleted_when_it_is_back(journals, tmp_path):
    journals.finish(journals.open(HEADER, 1))
    second = journals.open(HEADER, 2)
    away = tmp_path.rename(tmp_path.with_name("away"))
    journals.finish(second)
    away.rename(tmp_path)
    journals.mend()
    assert not path_of(tmp_path, 2).exists()


@EITHER
def test_the_size_of_all_journals_is_counted_as_they_grow_and_go(journals, tmp_path, row):
    def counted():
        assert row.cells[metrics.JOURNAL_BYTES] == sum(
            path.stat().st_size for path in Path(tmp_path, DIRECTORY).rglob("*.journal")
        )

    both = [journals.open(HEADER, seq) for seq in (1, 2)]
    for journal in both:
        counted()
        journals.append(journal, split(range(1, 4)))
        counted()
        refused(journals, journal, range(4, 9), 10)
        counted()
    third = journals.open(HEADER, 3)
    journals.append(third, split(range(1, 4)))
    journals.seal(third, 3)
    counted()
    for journal in (*both, third):
        journals.finish(journal)
        counted()
    assert row.cells[metrics.JOURNAL_BYTES] == 0


def test_the_commit_of_a_group_is_timed_whether_it_works_or_not(journals, journal, row):
    refused(journals, journal, range(4, 9), 10)
    at = metrics.COMMIT_SECONDS.at
    assert sum(row.cells[at : at + len(metrics.COMMIT_SECONDS.bounds) + 1]) == 2


@EITHER
def test_a_journal_that_can_not_be_made_leaves_nothing_and_the_next_one_can(
    journals, tmp_path, row
):
    journals.open(HEADER, 1)
    counted = row.cells[metrics.JOURNAL_BYTES]
    with files_at_most(10), pytest.raises(DiskError, match="create"):
        journals.open(HEADER, 2)
    assert not path_of(tmp_path, 2).exists()
    assert row.cells[metrics.JOURNAL_BYTES] == counted
    journal = journals.open(HEADER, 3)
    journals.append(journal, split(range(1, 4)))
    assert kept(path_of(tmp_path, 3)) == lines(range(1, 4))


def test_a_seal_that_fits_only_in_part_leaves_nothing_behind(journals, journal, tmp_path):
    before = path_of(tmp_path).read_bytes()
    with files_at_most(len(before) + 10), pytest.raises(DiskError, match="seal"):
        journals.seal(journal, 3)
    assert path_of(tmp_path).read_bytes() == journal.content() == before


def test_streams_are_given_up_with_what_they_hold(tmp_path, row):
    journals = Journals(str(tmp_path), Durability.JOURNAL, Metrics(row))
    journals.append(journals.open(HEADER, 1), split(range(1, 4)))
    root = str(tmp_path / DIRECTORY)
    assert DirectoryLock.adopt(root, STREAM) is None
    journals.close()
    lock = DirectoryLock.adopt(root, STREAM)
    assert directory_lock.journals(lock.path) == [str(path_of(tmp_path))]
    lock.release()


def test_streams_that_hold_nothing_leave_no_directory(tmp_path, row):
    journals = Journals(str(tmp_path), Durability.JOURNAL, Metrics(row))
    journals.finish(journals.open(HEADER, 1))
    journals.close()
    assert os.listdir(tmp_path / DIRECTORY) == []


# --- where somebody deletes what belongs to a living process


def lock_of(tmp_path):
    return path_of(tmp_path).with_name("lock")


def cleaned_up(tmp_path, how):
    """Delete what a careless cleaner would; tell the leader's part too."""
    if how == "directory":
        shutil.rmtree(tmp_path / DIRECTORY)
        return
    lock_of(tmp_path).unlink()
    if how == "recovered":  # as the leader does
        lock = DirectoryLock.adopt(str(tmp_path / DIRECTORY), STREAM)
        for path in directory_lock.journals(lock.path):
            os.unlink(path)
        lock.release()


HOWEVER = pytest.mark.parametrize("how", ["directory", "lock", "recovered"])


@HOWEVER
@EITHER
def test_a_stream_that_was_deleted_gets_its_directory_and_lock_again(journals, tmp_path, how):
    journals.seal(journals.open(HEADER, 1), 0)
    cleaned_up(tmp_path, how)
    journal = journals.open(HEADER, 2)
    journals.append(journal, split(range(1, 4)))
    assert kept(path_of(tmp_path, 2)) == lines(range(1, 4))
    assert lock_of(tmp_path).exists()
    assert DirectoryLock.adopt(str(tmp_path / DIRECTORY), STREAM) is None


@HOWEVER
@EITHER
def test_a_journal_whose_lock_was_deleted_takes_no_more_and_its_batch_is_to_be_sealed(
    journals, tmp_path, how
):
    told = []
    journals.on_lost = lambda: told.append("lost")
    journal = journals.open(HEADER, 1)
    journals.append(journal, split(range(1, 4)))
    journals.mend()
    assert told == []
    cleaned_up(tmp_path, how)
    for _ in range(2):
        journals.mend()
        assert told == ["lost"]
    with pytest.raises(DiskError, match="lock deleted"):
        journals.append(journal, split(range(4, 6)))
    assert not journals.trusted(journal)
    journals.seal(journal, 3)
    journals.finish(journal)
    assert not path_of(tmp_path).exists()


def test_a_stream_that_another_has_taken_over_is_left_to_it(journals, tmp_path):
    root = str(tmp_path / DIRECTORY)
    journal = journals.open(HEADER, 1)
    lock_of(tmp_path).unlink()
    taken = DirectoryLock.adopt(root, STREAM)
    with pytest.raises(DiskError, match="create"):
        journals.open(HEADER, 2)
    journals.finish(journal)
    journals.close()
    assert DirectoryLock.adopt(root, STREAM) is None
    taken.release()
    assert os.listdir(root) == []


def test_a_stream_is_kept_whose_name_sorts_before_the_last_ones_also_while_it_is_being_made(
    journals, tmp_path, monkeypatch
):
    journals.finish(journals.open(HEADER, 1))
    earlier = "0199c1b2e000" + STREAM[12:]  # the clock was set back
    making, mended = threading.Event(), threading.Event()

    def open_slowly(*args):
        descriptor = open_file(*args)
        making.set()
        assert mended.wait(20)
        return descriptor

    open_file = files.open_file
    monkeypatch.setattr(files, "open_file", open_slowly)
    opening = gevent.spawn(journals.open, replace(HEADER, stream=earlier), 1)
    gevent.sleep(0)
    assert making.wait(20)
    journals.mend()
    mended.set()
    journal = opening.get(timeout=20)
    root = tmp_path / DIRECTORY
    assert DirectoryLock.adopt(str(root), earlier) is None
    assert os.listdir(root) == [earlier]
    journals.mend()
    journals.append(journal, split(range(1, 4)))
    assert kept(root / earlier / "000001.journal") == lines(range(1, 4))


def test_a_stream_that_has_ended_goes_once_its_last_journal_does(journals, tmp_path):
    root = tmp_path / DIRECTORY
    newer = "0199c1b2f3a5" + STREAM[12:]
    old = journals.open(HEADER, 1)
    journals.open(replace(HEADER, stream=newer), 1)
    journals.mend()
    assert sorted(os.listdir(root)) == [STREAM, newer]
    journals.finish(old)
    journals.mend()
    assert os.listdir(root) == [newer]
