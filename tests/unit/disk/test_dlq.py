"""The DLQ on a real directory."""

import errno
import fcntl
import gzip
import json
import os

import pytest

from estat.disk import dlq_file, files, whole_file
from estat.disk.dlq import EXPIRED, PENDING, DeadLetterQueue
from estat.disk.slots import slot_of
from estat.errors import DiskError, Unreadable
from tests.unit.batches import batch, lines

NOW = 1763017800.0
HOUR = 3600
LATER = 10**11


@pytest.fixture
def dlq(tmp_path):
    queue = DeadLetterQueue(str(tmp_path / "dlq"))
    queue.create()
    return queue


def write(dlq, now=NOW, monkeypatch=None, **kwargs):
    if monkeypatch:
        monkeypatch.setattr("estat.disk.dlq.time.time", lambda: now)
    written = batch(**kwargs)
    return dlq.write(written, dlq_file.pack(written, "put_failed", "503 SlowDown"))


def only(entries):
    (entry,) = entries
    return entry


def due(dlq, area=PENDING, now=None):
    return dlq.scan(area, now or 10**11).due


def test_a_batch_comes_back_as_it_was(dlq):
    write(dlq)
    with dlq.claim(only(due(dlq))) as claim:
        assert claim.read() == batch()


def test_zcat_shows_why_a_file_is_there_and_then_its_events(dlq):
    write(dlq)
    with gzip.open(only(due(dlq)).path) as file:
        header, *events = file.read().splitlines(keepends=True)
    about = json.loads(header)
    assert (about["reason"], about["error"]) == ("put_failed", "503 SlowDown")
    assert about["key"] == batch().key
    assert b"".join(events) == lines(range(1, 11))


def test_a_name_tells_events_and_age():
    name = dlq_file.file_name(batch(range(5, 25)))
    assert dlq_file.parse_name(name) == (20, 1763017800)


@pytest.mark.parametrize("name", ["core", "a.jsonl.gz", "1_x-y_1.5.jsonl.gz", ".5.jsonl.gz"])
def test_a_strange_name_has_no_events_of_ours(name):
    assert dlq_file.parse_name(name) == (0, None)


# from 10 on: ten bytes of gzip's own header come first, some of which nothing reads
@pytest.mark.parametrize("position", [10, 40, 200, -30, -3, -1])
def test_a_flipped_byte_in_the_header_line_or_the_events_makes_a_file_unreadable(position):
    data = bytearray(b"".join(dlq_file.pack(batch(), "put_failed", "")))
    data[position] ^= 0x20
    with pytest.raises(Unreadable):
        dlq_file.unpack(bytes(data))


@pytest.mark.parametrize("keep", [0, 1, 30, 250, -1])
def test_a_cut_off_file_is_unreadable(keep):
    data = b"".join(dlq_file.pack(batch(), "put_failed", ""))
    with pytest.raises(Unreadable):
        dlq_file.unpack(data[:keep])


def test_files_are_due_oldest_first(dlq):
    for seq, opened in [(3, NOW + 2), (1, NOW), (2, NOW + 1)]:
        write(dlq, seq=seq, opened=opened)
    assert [entry.opened for entry in due(dlq)] == [NOW, NOW + 1, NOW + 2]


def test_a_scan_reads_no_more_names_than_it_may_and_the_oldest_slot_first(dlq, monkeypatch):
    for hours in (2, 0, 1):
        for seq in range(3):
            write(dlq, NOW + hours * HOUR, monkeypatch, seq=seq, opened=NOW + hours * HOUR)
    assert {entry.slot for entry in dlq.scan(PENDING, 10**11, limit=4).due} == {
        slot_of(NOW),
        slot_of(NOW + HOUR),
    }
    assert len(dlq.scan(PENDING, 10**11, limit=4).due) == 4


def test_a_deferred_file_is_not_due_before_its_hour_but_still_the_oldest(dlq, monkeypatch):
    write(dlq, NOW, monkeypatch)
    with dlq.claim(only(due(dlq))) as claim:
        dlq.defer(claim, NOW)
    assert due(dlq, now=NOW) == []
    assert dlq.scan(PENDING, NOW).oldest == NOW
    assert len(due(dlq, now=NOW + HOUR)) == 1


def test_an_expired_file_moves_and_is_deferred_within_its_area(dlq):
    write(dlq)
    with dlq.claim(only(due(dlq))) as claim:
        dlq.expire(claim, NOW)
    assert due(dlq) == []
    with dlq.claim(only(due(dlq, EXPIRED))) as claim:
        dlq.defer(claim, NOW)
    assert due(dlq, EXPIRED, NOW) == []
    assert len(due(dlq, EXPIRED, NOW + HOUR)) == 1


def test_a_claimed_file_can_not_be_claimed_again_until_it_is_let_go(dlq):
    write(dlq)
    entry = only(due(dlq))
    with dlq.claim(entry):
        assert dlq.claim(entry) is None
    with dlq.claim(entry) as claim:
        claim.remove()
    assert dlq.claim(entry) is None


def test_the_oldest_file_that_nobody_holds_is_found_wherever_it_is(dlq, monkeypatch):
    write(dlq, NOW, monkeypatch, seq=1, opened=NOW)
    write(dlq, NOW, monkeypatch, seq=2, opened=NOW + 1)
    first, second = due(dlq)
    with dlq.claim(first) as held:
        with dlq.oldest() as claim:
            assert claim.entry.name == second.name
        dlq.defer(held, NOW)
    with dlq.oldest() as claim:
        assert claim.entry.name == first.name


def test_an_emptied_past_slot_is_removed_and_a_late_writer_makes_it_again(dlq, monkeypatch):
    write(dlq, NOW, monkeypatch)
    entry = only(due(dlq))
    with dlq.claim(entry) as claim:
        claim.remove()
    dlq.scan(PENDING, NOW + 2 * HOUR)
    assert not os.path.exists(os.path.dirname(entry.path))
    write(dlq, NOW, monkeypatch)
    assert len(due(dlq)) == 1


def test_a_walk_counts_all_areas_from_names_alone_and_removes_what_dead_writers_left(dlq):
    size = write(dlq, seq=1) + write(dlq, seq=2)
    with dlq.claim(due(dlq)[0]) as claim:
        dlq.quarantine(claim)
    slot = os.path.dirname(only(due(dlq)).path)
    left = os.path.join(slot, f".left{files.TEMPORARY}")
    with open(left, "w"):
        pass

    def parts():
        yield b"half"
        os.utime(slot_files()[0], (0, 0))
        assert dlq.walk() == (2, 20, size)
        assert not os.path.exists(left)
        assert len(slot_files()) == 1, "whoever writes it lives"
        yield b"whole"

    def slot_files():
        return [entry.path for entry in os.scandir(slot) if entry.name.endswith(files.TEMPORARY)]

    whole_file.write(os.path.join(slot, "file"), parts(), files.PRIVATE)
    assert slot_files() == []


def test_a_file_that_a_walk_takes_for_a_dead_writers_is_written_all_the_same(dlq, monkeypatch):
    def walk_first(descriptor, operation):
        monkeypatch.undo()
        dlq.walk()
        fcntl.flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", walk_first)
    size = write(dlq)
    assert dlq.walk() == (1, 10, size)


def test_a_write_that_fails_leaves_nothing_and_tells_where(dlq):
    slot = os.path.join(dlq.root, PENDING)
    os.rmdir(slot)
    with open(slot, "w"):
        pass
    with pytest.raises(DiskError, match="pending"):
        write(dlq)
    os.unlink(slot)
    assert dlq.walk() == (0, 0, 0)


def test_what_is_not_a_file_in_a_slot_is_left_alone(dlq):
    size = write(dlq)
    os.mkdir(os.path.join(os.path.dirname(only(due(dlq)).path), "directory"))
    with open(os.path.join(dlq.root, PENDING, "stray"), "w"):
        pass
    assert len(due(dlq)) == 1
    assert dlq.walk() == (1, 10, size)


@pytest.mark.parametrize("modified", [0, LATER])
def test_a_walk_counts_a_file_whatever_its_time(dlq, modified):
    size = write(dlq)
    os.utime(only(due(dlq)).path, (modified, modified))
    assert dlq.walk() == (1, 10, size)


def test_files_of_a_clock_that_was_ahead_are_not_hidden_behind_those_that_are_put_off(
    dlq, monkeypatch
):
    for seq in (1, 2, 3):
        write(dlq, NOW, monkeypatch, seq=seq)
    for entry in due(dlq):
        with dlq.claim(entry) as claim:
            dlq.defer(claim, NOW)
    write(dlq, NOW + 24 * HOUR, monkeypatch, seq=4)
    assert len(dlq.scan(PENDING, NOW, limit=2).due) == 1


@pytest.mark.parametrize("hours", [1, 11, 25, 9600])
def test_the_oldest_file_is_found_however_far_ahead_its_slot_is(dlq, monkeypatch, hours):
    write(dlq, NOW + hours * HOUR, monkeypatch)
    monkeypatch.setattr("estat.disk.dlq.time.time", lambda: NOW)
    with dlq.oldest() as claim:
        assert claim.entry.events == 10


def test_a_file_is_claimed_also_where_locks_need_a_descriptor_for_writing(dlq, monkeypatch):
    # NFS's rule, flock(2); there is none to try it on

    def of_nfs(descriptor, operation):
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", of_nfs)
    write(dlq)
    with dlq.claim(only(due(dlq))) as claim:
        assert claim.read().events == batch().events


@pytest.mark.parametrize("hours", [-9600, -1, 0, 1, 2, 9600])
def test_a_new_file_is_due_whatever_the_clock_said_when_it_was_written(dlq, monkeypatch, hours):
    write(dlq, NOW + hours * HOUR, monkeypatch)
    assert len(due(dlq, now=NOW)) == 1


@pytest.mark.parametrize(("hours", "is_due"), [(-1, True), (0, False), (1, True), (9600, True)])
def test_a_file_is_put_off_for_an_hour_whatever_the_clock_said(dlq, hours, is_due):
    write(dlq)
    with dlq.claim(only(due(dlq))) as claim:
        dlq.defer(claim, NOW + hours * HOUR)
    assert bool(due(dlq, now=NOW)) == is_due


def test_what_lies_in_quarantine_is_durable_before_it_counts_as_there(dlq, monkeypatch):
    synced = []
    assert dlq.put_aside("damage", 3, b"x") is not None
    monkeypatch.setattr(files, "sync_directory", synced.append)
    assert dlq.put_aside("damage", 3, b"x") is None
    assert f"{dlq.root}/quarantine" in synced
