"""When a server on a shared volume counts as dead."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from estat.accounting import metrics
from estat.config import loading
from estat.disk import dlq_file, journal, journal_file
from estat.disk.directory_lock import LOCK
from estat.disk.dlq import PENDING, QUARANTINE, DeadLetterQueue, slot_of
from estat.disk.journal_file import Header
from estat.disk.journal_recovery import recover_journal
from estat.disk.server_directory import HEARTBEAT, SERVERS, ServerDirectory, boot_id
from estat.errors import DiskError
from estat.events.batch import Batch
from estat.pipeline.takeover import SILENCE_SECONDS, Takeover
from tests.support.parts import Parts
from tests.unit import batches

OTHER = "0199c1b2f3a5" + "cd" * 8
SOON, LATER = SILENCE_SECONDS - 1, SILENCE_SECONDS + 1


class Living:
    """The server that looks at the others."""

    def __init__(self, shared: Path) -> None:
        own = ServerDirectory(str(shared))
        settings = loading.load({"RAW_BUCKET": "events"}, env_file="/nowhere")
        worker = Parts(replace(settings, dlq_dir=own.path))
        worker.dlq.create()
        self.settings, self.page, self.dlq = worker.settings, worker.page, worker.dlq
        self.reconciliation = worker.reconciliation
        self.takeover = Takeover(
            own.path, worker.threads, worker.leader, worker.recovery, worker.accounts
        )

    def has_adopted(self) -> int:
        return self.page.rows[1].cells[metrics.ADOPTED]


class Dead:
    """A server's directory with one file of three events in its DLQ; nobody holds its lock."""

    def __init__(self, shared: Path, boot: str) -> None:
        directory = ServerDirectory(str(shared))
        self.path = Path(directory.path)
        self.dlq = DeadLetterQueue(directory.path)
        self.dlq.create()
        self.batch = batches.batch(range(1, 4))
        self.dlq.write(self.batch, dlq_file.pack(self.batch, "put_failed", ""))
        self.heartbeat = self.path / HEARTBEAT
        self.heartbeat.write_text(boot)
        directory.release()

    def leave_journal(self, data: bytes) -> None:
        """Leave the journal of the batch that is in its DLQ."""
        path = self.path / journal.DIRECTORY / self.batch.stream / "000001.journal"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)


def journal_of(batch: Batch) -> bytes:
    header = Header(batch.bucket, batch.key, batch.name, batch.stream, batch.first, batch.opened)
    lines = batches.lines(range(batch.first, batch.last + 1), batch.stream)
    group = journal_file.pack_group(lines.splitlines(keepends=True))
    return journal_file.pack_header(header) + group


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path)


def test_a_server_of_another_host_is_dead_when_its_heartbeat_has_stood_still(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path, "another boot")
    living.takeover.look(0)
    living.takeover.look(SOON)
    assert dead.path.exists()
    living.takeover.look(LATER)
    assert not dead.path.exists()
    assert [entry.events for entry in living.dlq.every()] == [3]
    assert living.has_adopted() == 3


def test_a_heartbeat_that_moves_is_a_sign_of_life_whatever_its_clock_says(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path, "another boot")
    living.takeover.look(0)
    os.utime(dead.heartbeat, (1, 1))
    living.takeover.look(LATER)
    living.takeover.look(LATER + SOON)
    assert dead.path.exists()
    living.takeover.look(2 * LATER)
    assert not dead.path.exists()


def test_under_the_same_kernel_a_free_lock_is_enough(living: Living, tmp_path: Path) -> None:
    dead = Dead(tmp_path, boot_id())
    living.takeover.look(0)
    assert not dead.path.exists()


def test_a_dead_server_goes_where_removed_files_stay_while_they_are_open(
    living: Living, tmp_path: Path, silly_renames: None
) -> None:
    dead = Dead(tmp_path, boot_id())
    living.takeover.look(0)
    assert not dead.path.exists()


def test_an_empty_server_goes_where_removed_files_stay_while_they_are_open(
    tmp_path: Path, silly_renames: None
) -> None:
    assert ServerDirectory(str(tmp_path)).release()
    assert os.listdir(tmp_path / SERVERS) == []


def test_a_lock_that_is_held_is_respected_however_silent_its_owner(
    living: Living, tmp_path: Path
) -> None:
    other = ServerDirectory(str(tmp_path))
    living.takeover.look(0)
    living.takeover.look(LATER)
    assert sorted(os.listdir(tmp_path / SERVERS)) == sorted(
        [os.path.basename(other.path), os.path.basename(living.dlq.root)]
    )


@pytest.mark.parametrize("hours", [0, 1000])
def test_a_batch_that_is_in_the_journal_and_in_the_dlq_of_a_dead_server_is_adopted_once(
    living: Living, tmp_path: Path, hours: int
) -> None:
    dead = Dead(tmp_path, boot_id())
    dead.leave_journal(journal_of(dead.batch))
    (slot,) = (dead.path / PENDING).iterdir()
    slot.rename(slot.with_name(slot_of(time.time() - 3600 * hours)))
    living.takeover.look(0)
    assert not dead.path.exists()
    assert living.reconciliation.booked() == living.dlq.walk()
    assert (living.dlq.walk().files, living.has_adopted()) == (1, 3)


def test_an_unreadable_file_of_a_dead_server_replaces_none_that_its_journal_became(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path, boot_id())
    dead.leave_journal(journal_of(dead.batch))
    (theirs,) = dead.dlq.every()
    Path(theirs.path).write_bytes(b"")
    living.takeover.look(0)
    (entry,) = living.dlq.every()
    claim = living.dlq.claim(entry)
    assert claim
    with claim:
        found = claim.read()
        assert (found.first, found.last) == (1, 3)
        claim.remove()
    assert Path(theirs.path).exists(), "it waits until the good one is stored"
    living.takeover.look(LATER)
    living.takeover.look(2 * LATER)
    assert not dead.path.exists()
    assert [entry.name for entry in living.dlq.every()] == [theirs.name]


def test_a_bad_range_that_a_dead_server_has_put_aside_is_adopted_once(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path, boot_id())
    data = bytearray(journal_of(dead.batch))
    (group,) = journal_file.parse(bytes(data)).groups
    data[group.start + 40] ^= 1
    dead.leave_journal(bytes(data))
    (damage,) = recover_journal(bytes(data), dead.batch.stream, 1, living.settings).damages
    dead.dlq.put_aside(*damage)
    living.takeover.look(0)
    assert not dead.path.exists()
    assert living.reconciliation.booked() == living.dlq.walk()
    assert len(os.listdir(Path(living.dlq.root, QUARANTINE))) == 1


def test_a_server_whose_lock_can_not_be_opened_hides_none_behind_it(
    living: Living, tmp_path: Path
) -> None:
    bad, good = sorted((Dead(tmp_path, boot_id()) for _ in range(2)), key=lambda dead: dead.path)
    (bad.path / LOCK).unlink()
    (bad.path / LOCK).mkdir()  # which opening for writing refuses
    living.takeover.look(0)
    assert bad.path.exists()
    assert not good.path.exists()


def test_a_file_that_can_not_be_opened_stays_and_hides_none_behind_it(
    living: Living, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Dead(tmp_path, boot_id())
    more = [batches.batch(range(1, 2), seq=seq) for seq in range(2, 6)]
    for batch in more:
        dead.dlq.write(batch, dlq_file.pack(batch, "put_failed", ""))
    name = dlq_file.file_name(dead.batch)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refusing(name))
        living.takeover.look(0)
    assert [entry.name for entry in dead.dlq.every()] == [name]
    assert living.has_adopted() == len(more)
    living.takeover.look(LATER)
    living.takeover.look(2 * LATER)
    assert not dead.path.exists()
    assert living.reconciliation.booked() == living.dlq.walk()
    assert living.has_adopted() == len(more) + 3


def refusing(name: str) -> Callable[..., int]:
    """Return an ``os.open`` to which a file of this name is closed."""
    original = os.open

    def opened(path: str, *args: Any, **kwargs: Any) -> int:
        if os.path.basename(path) == name:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return original(path, *args, **kwargs)

    return opened


def test_a_dlq_of_our_own_that_can_not_be_written_ends_the_look(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path, boot_id())
    other = batches.batch(range(1, 3), stream=OTHER)
    dead.batch = other
    dead.leave_journal(journal_of(other))
    pending = Path(living.dlq.root, PENDING)
    pending.rmdir()
    pending.write_bytes(b"")
    with pytest.raises(DiskError, match="scan"):
        living.takeover.look(0)
    assert dead.path.exists()
