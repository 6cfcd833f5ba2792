"""How the commands see journals: what is damage and what is not, and whether somebody owns them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estat.audit import dlq_reader
from estat.audit.dlq_reader import Journal
from estat.disk import locks
from estat.disk.directory_lock import DirectoryLock
from estat.disk.journal import DIRECTORY
from tests.unit.batches import STREAM, lines
from tests.unit.journals import JournalFile, journal


@pytest.fixture
def kept(tmp_path):
    """Return a journal whose server has left it."""
    return read(journal().data, tmp_path)


THREE_GROUPS = JournalFile().group(range(1, 4)).group([4]).group(range(5, 11)).seal(10).data


def read(data, tmp_path):
    made = journal()
    made.data = data
    made.write(str(tmp_path))
    (entry,) = dlq_reader.journals(str(tmp_path))
    return Journal(entry)


# --- what is damage


@given(cut=st.integers(0, len(THREE_GROUPS)))
def test_a_journal_that_ends_anywhere_is_whole_up_to_its_last_whole_group(cut, tmp_path_factory):
    found = read(THREE_GROUPS[:cut], tmp_path_factory.mktemp("dlq"))
    assert found.damages == []
    assert found.good_lines() == lines(range(1, found.events + 1))
    assert found.events in (0, 3, 4, 10)


def test_a_damaged_range_in_the_middle_is_named_and_hides_no_group_behind_it(tmp_path):
    found = read(JournalFile().group([1]).group([2, 3]).group([4]).flip(b'{"n":2}').data, tmp_path)
    assert found.spans == [(1, 1), (4, 4)]
    assert [bad.events for bad in found.damages] == [2]
    start, end = found.damages[0].start, found.damages[0].end
    assert dlq_reader.damage(found.damages[0]) == f"damaged from byte {start} to {end}, 2 events"


def test_a_damaged_last_group_is_told_from_one_that_is_still_being_written(tmp_path):
    found = read(JournalFile().group([1]).group([2]).flip(b'{"n":2}').data, tmp_path)
    assert found.spans == [(1, 1)]
    assert len(found.damages) == 1


def test_a_lost_first_line_is_damage_and_the_groups_keep_their_ids(tmp_path):
    found = read(journal().flip(b"estat_journal").data, tmp_path)
    assert (found.events, found.stream) == (10, STREAM)
    assert len(found.damages) == 1
    assert (found.facts()["bucket"], found.facts()["name"]) == (None, f"{STREAM}_000001")


def test_journals_come_oldest_first_and_strays_are_left_out(tmp_path):
    other = "0199c1b2f3a5" + "00" * 8
    paths = [
        journal(stream=other).write(str(tmp_path)),
        journal(seq=2).write(str(tmp_path)),
        journal(seq=1).write(str(tmp_path)),
    ]
    for stray in ("x", f".{STREAM}", "x/000001.journal", f"{STREAM}/notes.txt"):
        path = tmp_path / DIRECTORY / stray
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if stray in ("x", f".{STREAM}") else path.touch()
    assert [entry.path for entry in dlq_reader.journals(str(tmp_path))] == paths[::-1]


# --- whether somebody owns it


@pytest.mark.parametrize("name", ["lock", "leader.lock"])
def test_a_journal_is_owned_while_its_servers_lock_is_held_and_not_after(tmp_path, kept, name):
    assert kept.is_owned is False
    held = locks.lock(str(tmp_path / name), create=True)
    assert kept.is_owned is True
    os.close(held)
    assert kept.is_owned is False


def test_a_lock_that_can_not_be_opened_says_nothing(tmp_path, kept):
    (tmp_path / "lock").mkdir()
    assert kept.is_owned is None


def test_asking_who_owns_a_journal_never_keeps_anybody_from_adopting_its_stream(tmp_path, kept):
    lock = DirectoryLock.adopt(str(tmp_path / DIRECTORY), STREAM)
    assert kept.is_owned is False, "the stream's own lock is not looked at"
    lock.close()
