"""A lock is held by one, on the file that has the name."""

import fcntl
import os
from pathlib import Path

import pytest

from estat.disk import locks
from estat.disk.leader import Leader
from tests.support.disks import read_only


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def test_a_lock_is_held_by_one_until_it_is_closed(path: str) -> None:
    held = locks.lock(path, create=True)
    with pytest.raises(BlockingIOError):
        locks.lock(path)
    os.close(held)
    os.close(locks.lock(path))


def test_shared_locks_go_together_and_not_with_an_exclusive_one(path: str) -> None:
    shared = [locks.lock(path, create=True, shared=True), locks.lock(path, shared=True)]
    with pytest.raises(BlockingIOError):
        locks.lock(path)
    for descriptor in shared:
        os.close(descriptor)
    os.close(locks.lock(path))


def test_only_with_create_a_missing_file_is_made(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        locks.lock(path)
    assert not os.path.exists(path)
    os.close(locks.lock(path, create=True))
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_no_link_is_followed_to_what_is_locked(path: str, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    os.symlink(tmp_path / "other", path)
    for create in (True, False):
        with pytest.raises(OSError, match="symbolic link"):
            locks.lock(path, create=create)


@pytest.mark.parametrize("anew", [True, False])
def test_a_file_that_lost_its_name_before_it_was_locked_is_not_locked(
    anew: bool, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_first(descriptor: int, operation: int) -> None:
        os.unlink(path)
        if anew:
            Path(path).touch()
        flock(descriptor, operation)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", remove_first)
    open_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        locks.lock(path, create=True)
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_one_leads_until_it_lets_another(tmp_path: Path) -> None:
    first, second = Leader(str(tmp_path)), Leader(str(tmp_path))
    assert (first.lead(), first.lead(), second.lead()) == (True, True, False)
    first.release()
    assert (second.lead(), first.lead()) == (True, False)
    second.release()


def test_on_a_read_only_disk_what_is_there_is_locked_and_nothing_is_made(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "lock").touch()
    with read_only(disk):
        held = locks.lock(str(disk / "lock"), create=True)
        with pytest.raises(BlockingIOError):
            locks.lock(str(disk / "lock"), create=True)
        os.close(held)
        with pytest.raises(OSError, match="Read-only"):
            locks.lock(str(disk / "other"), create=True)
