"""The files of open hours, and what of an hour is still on disk."""

import fcntl
import json
import os
import threading
from zoneinfo import ZoneInfo

import pytest

from estat.disk import dlq_file, hour_files, journal_file, locks
from estat.disk.dlq import DeadLetterQueue
from estat.disk.hour_files import HourFile
from estat.disk.journal_file import Header
from estat.events.closed_hour import OPENED, STORED, Note
from tests.unit.batches import STREAM, batch

SERVER, DEAD = "01a2" * 7, "01a1" * 7
KEY = batch().key
NAME = hour_files.name_of("events", KEY)


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "servers" / SERVER
    path.mkdir(parents=True)
    return str(path)


def note(first=1, last=10, fate=STORED, key=KEY, bucket="events"):
    return Note(bucket, key, first, last, fate)


def only(root):
    (file,) = hour_files.found_in(root)
    return file


def test_notes_are_found_as_they_were_written_each_in_the_file_of_its_hour(root):
    later = KEY.replace("hr=07", "hr=08")
    hour_files.append(root, [note(1, 0, OPENED), note(key=later), note()])
    hour_files.append(root, [note(11, 20)])
    first, second = hour_files.found_in(root)
    assert (first.server, first.name[:13], second.name[:13]) == (
        SERVER,
        "2025-11-13T07",
        "2025-11-13T08",
    )
    assert hour_files.read(first)[0] == [note(1, 0, OPENED), note(), note(11, 20)]
    assert hour_files.read(second)[0] == [note(key=later)]
    assert hour_files.number_of(first.name) == 2025111307


def test_hours_of_another_bucket_or_prefix_have_files_of_their_own(root):
    hour_files.append(root, [note(), note(bucket="other"), note(key="x" + KEY)])
    assert len(hour_files.found_in(root)) == 3


def test_a_stored_batch_of_an_hour_that_was_taken_over_is_noted_for_the_server_that_had_it(root):
    taken = os.path.join(root, "hours", f"{DEAD}.1")
    os.makedirs(taken)
    with open(os.path.join(taken, NAME), "w", encoding="utf-8"):
        pass
    hour_files.append(root, [note()])
    assert only(root) == HourFile(DEAD, os.path.join(taken, NAME))
    hour_files.append(root, [note(1, 0, OPENED)])
    assert {file.server for file in hour_files.found_in(root)} == {DEAD, SERVER}


@pytest.mark.parametrize(
    "line",
    [
        b'["events","' + KEY.encode() + b'",1,',
        b"{}",
        b"[" * 5000,
        b"\xff",
        *(
            json.dumps(words).encode()
            for words in (
                [],
                ["events", KEY, 1, 10],
                ["events", KEY, 0, 10, "stored"],
                ["events", KEY, 1, 10, "lost"],
                ["events", KEY, 1.5, 10, "stored"],
                ["file:/etc/../x y", KEY, 1, 10, "stored"],
                ["events", "../../etc/passwd", 1, 10, "stored"],
                ["events", KEY.replace("hr=07", "hr=09"), 1, 10, "stored"],
                [["events"], KEY, 1, 10, "stored"],
                ["events", None, 1, 10, "stored"],
            )
        ),
    ],
)
def test_a_line_that_this_server_does_not_write_is_passed_over_and_hides_no_other(root, line):
    hour_files.append(root, [note()])
    with open(only(root).path, "ab") as file:
        file.write(line)
    hour_files.append(root, [note(11, 20)])
    assert hour_files.read(only(root))[0] == [note(), note(11, 20)]


def test_other_names_are_no_hours(root):
    for name in (f"hours/{SERVER}/notes.txt", "hours/strange/" + NAME, f"hours/{NAME}"):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8"):
            pass
    assert hour_files.found_in(root) == []


def test_a_file_that_has_grown_since_it_was_read_stays(root):
    hour_files.append(root, [note()])
    file = only(root)
    _, size_bytes = hour_files.read(file)
    hour_files.append(root, [note(11, 20)])
    assert not hour_files.remove(file, size_bytes)
    assert hour_files.remove(file, hour_files.read(file)[1])
    assert os.listdir(os.path.join(root, "hours")) == []


def test_a_note_that_comes_as_its_file_goes_is_in_a_new_one(root, monkeypatch):
    hour_files.append(root, [note()])
    file = only(root)
    _, size_bytes = hour_files.read(file)
    flock = fcntl.flock

    def flock_late(descriptor, operation):
        monkeypatch.undo()
        assert hour_files.remove(file, size_bytes)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    hour_files.append(root, [note(11, 20)])
    assert hour_files.read(only(root))[0] == [note(11, 20)]


def test_a_file_stays_while_somebody_writes_to_it(root, monkeypatch):
    hour_files.append(root, [note()])
    file = only(root)
    _, size_bytes = hour_files.read(file)
    write = os.write

    def write_late(descriptor, data):
        monkeypatch.undo()
        assert not hour_files.remove(file, size_bytes)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_late)
    hour_files.append(root, [note(11, 20)])
    assert hour_files.read(only(root))[0] == [note(), note(11, 20)]


def test_while_a_file_is_about_to_go_nobody_writes_to_it(root, monkeypatch):
    hour_files.append(root, [note()])
    path = only(root).path
    descriptor = locks.lock(path)
    asked, flock = threading.Event(), fcntl.flock

    def flock_told(descriptor, operation):
        asked.set()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_told)
    writer = threading.Thread(target=hour_files.append, args=(root, [note(11, 20)]))
    writer.start()
    assert asked.wait(10)
    os.unlink(path)
    os.close(descriptor)
    writer.join()
    assert hour_files.read(only(root))[0] == [note(11, 20)]


def test_a_note_whose_directory_goes_as_its_file_is_made_is_written_again(root, monkeypatch):
    mkdir = os.mkdir

    def mkdir_in_vain(path, mode):
        mkdir(path, mode)
        if os.path.basename(path) == SERVER:
            monkeypatch.undo()
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", mkdir_in_vain)
    hour_files.append(root, [note()])
    assert hour_files.read(only(root))[0] == [note()]


def test_a_file_that_an_earlier_version_was_about_to_remove_is_of_its_server(root):
    path = os.path.join(root, "hours", f"{SERVER}.closing", NAME)
    os.makedirs(os.path.dirname(path))
    with open(path, "w", encoding="utf-8"):
        pass
    hour_files.append(root, [note()])
    file = only(root)
    assert file == HourFile(SERVER, path)
    assert hour_files.remove(file, hour_files.read(file)[1])


# --- what is left of an hour


def held(root, *names):
    return hour_files.of_files(DeadLetterQueue(root), {NAME, *names}, ZoneInfo("UTC"))


def put_journal(root, data, stream=STREAM):
    path = os.path.join(root, "journal", stream)
    os.makedirs(path)
    with open(os.path.join(path, "000001.journal"), "wb") as file:
        file.write(data)


def header(key=KEY):
    one = batch()
    return journal_file.pack_header(Header(one.bucket, key, one.name, STREAM, 1, one.opened))


@pytest.mark.parametrize(
    ("data", "is_held"),
    [
        (header(), True),
        (header(KEY.replace("hr=07", "hr=08")), False),
        (b"", True),  # it does not tell
        (b"garbage\n", True),
        (b'{"estat_journal":2,"key":"x"}\n', True),  # a later version knows
        (header("../../etc/passwd"), False),
    ],
)
def test_a_journal_holds_its_hour_and_one_that_does_not_tell_holds_all(root, data, is_held):
    put_journal(root, data)
    assert (NAME in hour_files.of_journals(root, {NAME})) == is_held


def put_file(root, one, data=None, area="pending/2026-11-23T01"):
    path = os.path.join(root, area, dlq_file.file_name(one))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"".join(dlq_file.pack(one, "put_failed", "")) if data is None else data)


@pytest.mark.parametrize("area", ["pending/2026-11-23T01", "pending/2099-01-01T00+", "expired/x"])
def test_a_file_of_the_dlq_holds_its_hour_wherever_it_lies(root, area):
    put_file(root, batch(), area=area)
    other = hour_files.name_of("events", KEY.replace("hr=07", "hr=08"))
    assert held(root, other) == {NAME}


def test_a_file_holds_the_hour_of_its_key_whatever_zone_that_was_in(root):
    one = batch(opened=1763017800.0 + 13 * 3600)
    put_file(root, one)
    assert held(root) == {NAME}


@pytest.mark.parametrize("area", ["pending/2026-11-23T01", "quarantine"])
def test_a_file_that_can_not_be_read_holds_the_hour_of_its_time(root, area):
    put_file(root, batch(), b"garbage", area)
    assert held(root) == {NAME}


def test_what_is_not_ours_holds_nothing(root):
    put_file(root, batch(bucket="../etc"))
    assert held(root) == set()
