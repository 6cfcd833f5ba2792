"""Who may touch a stream's journals: one process, and nobody while its owner lives."""

import errno
import fcntl
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest

import estat
from estat.disk import directory_lock, files
from estat.disk.directory_lock import DirectoryLock
from estat.errors import DiskError
from tests.unit.batches import STREAM

OTHER = "0199c1b2f3a5" + "cd" * 8
RACERS = 8
DEADLINE_SECONDS = 30

TAKE = """
import sys
from estat.disk.directory_lock import DirectoryLock
root, stream, how = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
lock = getattr(DirectoryLock, how)(root, stream)
print("mine" if lock else "not mine", flush=True)
sys.stdin.readline()
"""

RECOVER = """
import os, sys
from estat.disk import directory_lock
from estat.disk.directory_lock import DirectoryLock
root, stream = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
recovered = 0
while os.path.exists(os.path.join(root, stream)):
    lock = DirectoryLock.adopt(root, stream)
    if lock:
        for path in directory_lock.journals(lock.path):
            os.unlink(path)
            recovered += 1
        lock.release()
print(recovered)
"""


class Process:
    """Another process, which goes on a step whenever it is told to."""

    def __init__(self, code, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(estat.__file__).parents[1],
        )
        self._deadline = Timer(DEADLINE_SECONDS, self._process.kill)
        self._deadline.start()
        assert self.said() == "ready"

    def go_on(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def said(self):
        return self._process.stdout.readline().strip()

    def does(self):
        self.go_on()
        return self.said()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self._deadline.cancel()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "dlq" / "journal")


def add_journal(lock, number=1):
    path = Path(lock.path, f"{number:06d}.journal")
    path.write_bytes(b"")
    return str(path)


def test_a_living_stream_is_not_adopted_by_its_own_process(root):
    lock = DirectoryLock.create(root, STREAM)
    assert DirectoryLock.adopt(root, STREAM) is None
    lock.release()


def test_a_living_stream_is_not_adopted_by_another_process(root):
    with Process(TAKE, root, STREAM, "adopt") as other:
        lock = DirectoryLock.create(root, STREAM)
        assert other.does() == "not mine"
    lock.release()


def test_the_stream_of_a_killed_process_is_adopted(root):
    with Process(TAKE, root, STREAM, "create") as owner:
        assert owner.does() == "mine"
        assert DirectoryLock.adopt(root, STREAM) is None
        owner.kill()
        lock = DirectoryLock.adopt(root, STREAM)
    assert lock is not None
    lock.release()


def test_a_free_stream_is_adopted_by_exactly_one_of_several_processes(root):
    lock = DirectoryLock.create(root, STREAM)
    add_journal(lock)
    lock.release()
    with ExitStack() as running:
        racers = [
            running.enter_context(Process(TAKE, root, STREAM, "adopt")) for _ in range(RACERS)
        ]
        for racer in racers:
            racer.go_on()
        said = [racer.said() for racer in racers]
    assert sorted(said) == ["mine"] + ["not mine"] * (RACERS - 1)


def test_processes_that_recover_at_the_same_time_recover_each_journal_once_and_leave_nothing(root):
    lock = DirectoryLock.create(root, STREAM)
    for number in range(1, 6):
        add_journal(lock, number)
    lock.release()
    with ExitStack() as running:
        racers = [running.enter_context(Process(RECOVER, root, STREAM)) for _ in range(RACERS)]
        for racer in racers:
            racer.go_on()
        assert sum(int(racer.said()) for racer in racers) == 5
    assert os.listdir(root) == []


def test_a_stream_that_is_gone_is_not_adopted(root):
    assert DirectoryLock.adopt(root, STREAM) is None
    assert directory_lock.streams(root) == []


def test_a_directory_goes_where_an_open_file_stays_in_it_until_it_is_closed(root, silly_renames):
    DirectoryLock.create(root, STREAM).release()
    assert os.listdir(root) == []


def test_what_comes_while_a_directory_goes_keeps_its_lock(root, monkeypatch):
    came = []
    lock = DirectoryLock.create(root, STREAM)

    def come_first(path, *args, **kwargs):
        monkeypatch.undo()
        came.append(DirectoryLock.adopt(root, STREAM))
        os.rmdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "rmdir", come_first)
    lock.release()
    assert DirectoryLock.adopt(root, STREAM) is None
    came[0].release()
    assert os.listdir(root) == []


def test_a_lock_closes_its_descriptor_once(root):
    lock = DirectoryLock.create(root, STREAM)
    lock.release()
    with open(os.devnull, "rb") as other:  # gets the number that was the lock's
        lock.close()
        assert other.read() == b""


def test_a_stream_has_no_name_before_it_is_locked(root, monkeypatch):
    seen = []

    def look(source, target):
        seen.append(directory_lock.streams(root))
        with open(os.path.join(source, directory_lock.LOCK), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                seen.append("locked")
        rename(source, target)

    rename = os.rename
    monkeypatch.setattr(os, "rename", look)
    lock = DirectoryLock.create(root, STREAM)
    assert seen == [[], "locked"]
    assert directory_lock.streams(root) == [STREAM]
    lock.release()


def test_release_removes_a_directory_without_journals(root):
    DirectoryLock.create(root, STREAM).release()
    assert os.listdir(root) == []


def test_release_keeps_a_directory_with_journals_for_the_next_owner(root):
    lock = DirectoryLock.create(root, STREAM)
    path = add_journal(lock)
    lock.release()
    adopted = DirectoryLock.adopt(root, STREAM)
    assert directory_lock.journals(adopted.path) == [path]
    adopted.release()


def test_a_directory_whose_lock_was_lost_is_adopted(root):
    lock = DirectoryLock.create(root, STREAM)
    add_journal(lock)
    lock.release()
    os.unlink(os.path.join(lock.path, directory_lock.LOCK))
    adopted = DirectoryLock.adopt(root, STREAM)
    assert DirectoryLock.adopt(root, STREAM) is None
    adopted.release()


def test_streams_and_journals_come_oldest_first_and_nothing_else_is_one(root):
    newer, older = DirectoryLock.create(root, OTHER), DirectoryLock.create(root, STREAM)
    paths = [add_journal(older, number) for number in (2, 10, 1)]
    Path(older.path, "000003.journal.tmp").write_bytes(b"")
    os.mkdir(os.path.join(root, f".{STREAM}"))
    assert directory_lock.streams(root) == [STREAM, OTHER]
    assert directory_lock.journals(older.path) == sorted(paths)
    newer.release()
    older.release()


def test_a_stream_that_can_not_be_made_leaves_nothing_and_can_be_made_later(root):
    taken = Path(root, STREAM, "something")
    taken.mkdir(parents=True)
    with pytest.raises(DiskError, match="create"):
        DirectoryLock.create(root, STREAM)
    assert os.listdir(root) == [STREAM]
    taken.rmdir()
    lock = DirectoryLock.create(root, STREAM)
    assert DirectoryLock.adopt(root, STREAM) is None
    lock.release()


def test_a_stream_that_could_not_be_made_durable_loses_its_lock_first_and_goes(root, monkeypatch):
    seen = []

    def fail(path):
        raise OSError(errno.EIO, "gone")

    def look(descriptor):
        if os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}").split(" ")[0]) == "lock":
            seen.append(os.listdir(os.path.join(root, STREAM)))
        close(descriptor)

    close = os.close
    os.makedirs(root)
    monkeypatch.setattr(files, "make_directories", lambda path, access: None)
    monkeypatch.setattr(files, "sync_directory", fail)
    monkeypatch.setattr(os, "close", look)
    with pytest.raises(DiskError, match="create"):
        DirectoryLock.create(root, STREAM)
    assert seen == [[]]
    assert os.listdir(root) == []


def test_a_stream_that_can_not_be_locked_leaves_nothing(root, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(DiskError, match="create"):
        DirectoryLock.create(root, STREAM)
    assert os.listdir(root) == []


def test_an_attempt_to_make_a_stream_that_is_there_leaves_its_lock(root):
    lock = DirectoryLock.create(root, STREAM)
    with pytest.raises(DiskError, match="create"):
        DirectoryLock.create(root, STREAM)
    assert lock.held
    assert os.listdir(root) == [STREAM]
    lock.release()


def test_a_lock_is_held_until_its_file_is_gone_or_another_one(root):
    lock = DirectoryLock.create(root, STREAM)
    path = os.path.join(lock.path, directory_lock.LOCK)
    assert lock.held
    os.unlink(path)
    assert not lock.held
    Path(path).write_bytes(b"")
    assert not lock.held
    lock.release()
