"""When a worker may write to its server's directory, by a clock of the test's own."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import GIVEN_UP, LOST, PROVEN
from estat.disk import locks
from estat.disk.directory_lock import LOCK
from estat.disk.server_directory import LEASE_SECONDS, ServerDirectory, Sign, boot_id, sign_of
from estat.errors import DiskError
from estat.pipeline import lease as lease_module
from estat.pipeline.lease import Lease


class Worker:
    """A worker that looks once a second."""

    def __init__(self, directory: ServerDirectory | None, path: str) -> None:
        self.page = metrics.page()
        self.over: list[str] = []
        self.now = 0.0
        self.lease = Lease(directory, path, self.page)
        self.lease.on_over = self.over.append

    def look(self, seconds: float = 1) -> bool:
        """Look once a second for so long; tell whether the last look proved the ownership."""
        until = self.now + seconds
        proven = False
        while self.now < until:
            self.now += 1
            try:
                self.lease.renew()
                proven = True
            except DiskError:
                proven = False
        return proven

    @property
    def may_write(self) -> bool:
        try:
            self.lease.check()
        except DiskError:
            return False
        return True


@pytest.fixture
def directory(tmp_path: Path) -> ServerDirectory:
    return ServerDirectory.make(str(tmp_path / "dlq"))


@pytest.fixture
def worker(directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch) -> Worker:
    clock: list[Worker] = []
    monkeypatch.setattr(lease_module, "now", lambda: clock[0].now if clock else 0.0)
    made = Worker(directory, directory.path)
    clock.append(made)
    return made


def move_dlq_dir(directory: ServerDirectory, tmp_path: Path) -> Callable[[], None]:
    (tmp_path / "dlq").rename(tmp_path / "elsewhere")
    return lambda: (tmp_path / "elsewhere").replace(tmp_path / "dlq") and None


def hide_lock(directory: ServerDirectory, tmp_path: Path) -> Callable[[], None]:
    lock = Path(directory.path, LOCK)
    lock.rename(tmp_path / "lock")
    return lambda: (tmp_path / "lock").replace(lock) and None


def swap_lock(directory: ServerDirectory, tmp_path: Path) -> Callable[[], None]:
    back = hide_lock(directory, tmp_path)
    Path(directory.path, LOCK).touch()
    return back


LOSSES = [move_dlq_dir, hide_lock, swap_lock]
Loss = Callable[[ServerDirectory, Path], Callable[[], None]]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_directory_that_is_gone_and_comes_back_in_time_is_used_again(
    worker: Worker, directory: ServerDirectory, tmp_path: Path, lose: Loss, caplog: Any
) -> None:
    assert worker.look(100)
    come_back = lose(directory, tmp_path)
    assert not worker.look(LEASE_SECONDS)
    assert (worker.may_write, worker.lease.gone) == (False, True)
    come_back()
    assert worker.look()
    assert (worker.may_write, worker.over) == (True, [])
    assert [line.message for line in caplog.records] == ["directory_gone", "directory_back"]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_worker_whose_directory_is_gone_for_too_long_ends(
    worker: Worker, directory: ServerDirectory, tmp_path: Path, lose: Loss
) -> None:
    worker.look()
    lose(directory, tmp_path)
    worker.look(LEASE_SECONDS + 2)
    assert worker.over
    assert worker.page.directory[LOST]
    assert not worker.may_write


def test_a_worker_that_stood_still_may_not_write_before_it_has_looked(worker: Worker) -> None:
    worker.look()
    worker.now += LEASE_SECONDS + 1
    assert not worker.may_write
    assert worker.look(), "nobody has taken it"
    assert worker.may_write
    assert not worker.over


def test_a_worker_that_stood_still_while_its_directory_was_taken_over_ends(
    worker: Worker, directory: ServerDirectory
) -> None:
    worker.look()
    worker.now += LEASE_SECONDS + 1
    os.rename(directory.path, directory.path + ".1")
    assert not worker.look()
    assert worker.over


def test_a_worker_goes_on_in_no_directory_that_was_given_up_though_it_came_back(
    worker: Worker, directory: ServerDirectory, tmp_path: Path
) -> None:
    worker.look()
    come_back = move_dlq_dir(directory, tmp_path)
    worker.look(5)
    worker.page.directory[GIVEN_UP] += 1  # another worker's lease was over
    come_back()
    assert not worker.look()
    assert worker.over
    assert not worker.may_write


def test_a_worker_that_starts_while_the_directory_is_gone_has_what_is_left_of_the_lease(
    worker: Worker, directory: ServerDirectory, tmp_path: Path
) -> None:
    worker.look()
    come_back = move_dlq_dir(directory, tmp_path)
    worker.look(LEASE_SECONDS - 2)
    young = Lease(directory, directory.path, worker.page)
    with pytest.raises(DiskError):
        young.renew()
    young.on_over = worker.over.append
    worker.now += 5
    with pytest.raises(DiskError):
        young.renew()
    assert worker.over
    assert worker.page.directory[PROVEN] == 1
    come_back()


def test_a_disk_that_refuses_is_no_loss_of_the_directory(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        patched.setattr(os, "write", fail)
        worker.look(10)
        assert worker.may_write
        worker.look(10 * LEASE_SECONDS)
        assert not worker.may_write
    assert worker.look()
    assert (worker.may_write, worker.over) == (True, [])


def test_a_lock_that_a_network_volume_has_lost_is_no_proof_though_the_disk_works(
    worker: Worker, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", fail)
    worker.look(LEASE_SECONDS + 2)
    assert worker.over


def test_a_lock_on_a_full_disk_is_touched_all_the_same(
    worker: Worker, directory: ServerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    lock = Path(directory.path, LOCK)
    os.utime(lock, (1, 1))
    monkeypatch.setattr(os, "pwrite", fail)
    assert worker.look()
    assert lock.stat().st_mtime > 1


def test_the_lock_tells_the_boot_and_the_bytes(worker: Worker, directory: ServerDirectory) -> None:
    Metrics(worker.page.rows[1]).count(metrics.JOURNAL_BYTES, 77)
    worker.page.rows[1].change({metrics.DLQ_BYTES: 1000})
    worker.look()
    assert sign_of(directory.path) == Sign(boot_id(), released=False, size_bytes=1077)


def test_a_worker_without_a_directory_ends_as_soon_as_one_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(None, str(tmp_path / "dlq" / "servers" / ".none"))
    with monkeypatch.context() as patched:

        def fail(path: str, *_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", path)

        patched.setattr(os, "mkdir", fail)
        worker.look(100)
        with pytest.raises(DiskError) as refused:
            worker.lease.check()
        assert refused.value.errno == errno.ENOSPC
    assert not worker.over
    worker.look()
    assert worker.over
    assert not worker.may_write
    assert os.listdir(tmp_path / "dlq" / "servers") == []


def test_with_no_room_for_a_directory_that_of_a_dead_server_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = ServerDirectory.make(str(tmp_path))
    stream = Path(dead.path, "journal", "0199c1b2f3a4" + "ab" * 8)
    stream.mkdir(parents=True)
    (stream / "000001.journal").touch()
    living = ServerDirectory.make(str(tmp_path))
    dead.close()

    def fail(path: str, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(os, "mkdir", fail)
    reused = ServerDirectory.make(str(tmp_path))
    assert not os.path.exists(dead.path)
    assert sorted(os.listdir(tmp_path / "servers")) == sorted(
        map(os.path.basename, (living.path, reused.path))
    )
    assert os.listdir(Path(reused.path, "journal")) == [f"{stream.name}.1"], "of another run"
    with pytest.raises(BlockingIOError):
        locks.lock(os.path.join(reused.path, LOCK))
    with pytest.raises(DiskError, match="No space"):
        ServerDirectory.make(str(tmp_path))
