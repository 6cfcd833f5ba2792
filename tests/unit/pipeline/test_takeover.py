"""When a server in DLQ_DIR counts as dead, and that all it left is counted once."""

import contextlib
import errno
import fcntl
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import Row
from estat.config import loading
from estat.disk import dlq_file, journal, journal_file
from estat.disk.directory_lock import LOCK
from estat.disk.dlq import PENDING, QUARANTINE, DeadLetterQueue
from estat.disk.journal_file import Header
from estat.disk.journal_recovery import recover_journal
from estat.disk.server_directory import (
    SERVERS,
    SILENCE_SECONDS,
    ServerDirectory,
    Sign,
    boot_id,
    sign_of,
)
from estat.disk.slots import EVER, slot_of
from estat.errors import DiskError
from estat.events.batch import Batch
from tests.support.parts import Parts
from tests.unit import batches
from tests.unit.mortal_row import Cells, Killed

OTHER = "0199c1b2f3a5" + "cd" * 8
ELSEWHERE = "another boot"


class Living:
    """The server that looks at the others."""

    def __init__(self, dlq_dir: Path) -> None:
        self.own = ServerDirectory.make(str(dlq_dir))
        settings = loading.load({"RAW_BUCKET": "events"}, env_file="/nowhere")
        self.settings = replace(settings, dlq_dir=self.own.path)
        self.page = metrics.page()
        self.lead()

    def lead(self, slot: int = 1) -> None:
        """Let a worker lead that knows nothing of what another one did."""
        worker = Parts(self.settings, self.page, slot)
        self.dlq, self.compare = worker.dlq, worker.compare
        self.takeover, self.recovery = worker.takeover, worker.recovery
        self.admission = worker.admission

    def look(self) -> None:
        """Take over who is dead, and recover the streams that came."""
        self.takeover.turn()
        self.recovery.turn()

    @property
    def adopted(self) -> int:
        return sum(row.read()[metrics.ADOPTED] for row in self.page.used_rows())

    def check(self, events: int, files: int = 1) -> None:
        """Assert that so many events were adopted and lie here, each once."""
        self.compare()
        walked = self.dlq.walk()
        assert (walked.files, walked.events) == (files, events)
        assert self.adopted == events
        assert ledger.in_dlq(self.page.used_rows()) == walked


class Dead:
    """A server's directory with one file of three events in its DLQ; nobody holds its lock."""

    def __init__(self, dlq_dir: Path, boot: str = "", released: bool = False) -> None:
        directory = ServerDirectory.make(str(dlq_dir))
        self.path = Path(directory.path)
        self.dlq = DeadLetterQueue(directory.path)
        self.batch = batches.batch(range(1, 4))
        self.dlq.write(self.batch, dlq_file.pack(self.batch, "put_failed", ""))
        directory._say(Sign(boot or boot_id(), released))
        directory.close()

    @property
    def lock(self) -> Path:
        return self.path / LOCK

    def leave_journal(self, data: bytes) -> None:
        """Leave the journal of the batch that is in its DLQ."""
        path = self.path / journal.DIRECTORY / self.batch.stream / "000001.journal"
        path.parent.mkdir(parents=True)
        path.with_name(LOCK).touch()
        path.write_bytes(data)

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it, under whatever name."""
        return not list(self.path.parent.glob(f"{self.path.name}*"))


def journal_of(batch: Batch) -> bytes:
    header = Header(batch.bucket, batch.key, batch.name, batch.stream, batch.first, batch.opened)
    lines = batches.lines(range(batch.first, batch.last + 1), batch.stream)
    group = journal_file.pack_group(lines.splitlines(keepends=True))
    return journal_file.pack_header(header) + group


def age(path: Path, seconds: float) -> None:
    """Let a file have been written so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def age_directories(path: Path, seconds: float) -> None:
    for place, _, _ in os.walk(path):
        age(Path(place), seconds)


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path)


def test_under_the_same_kernel_a_free_lock_is_enough(living: Living, tmp_path: Path) -> None:
    dead = Dead(tmp_path)
    living.look()
    assert dead.is_gone
    living.check(events=3)


@pytest.mark.parametrize("locked", [False, True])
def test_a_stream_that_a_killed_process_made_half_goes_with_the_directory(
    living: Living, tmp_path: Path, locked: bool
) -> None:
    dead = Dead(tmp_path)
    half = dead.path / journal.DIRECTORY / f".{OTHER}"
    half.mkdir(parents=True)
    if locked:
        (half / LOCK).touch()
    living.look()
    assert dead.is_gone
    living.check(events=3)


def test_a_file_that_comes_to_a_directory_that_was_left_alone_is_taken_over(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path)
    (dead.path / "notes.txt").touch()
    living.look()
    living.check(events=3)
    (left,) = tmp_path.glob(f"{SERVERS}/{dead.path.name}*")
    late = batches.batch(range(4, 7))
    DeadLetterQueue(str(left)).write(late, dlq_file.pack(late, "put_failed", ""))
    living.look()
    living.check(events=6, files=2)


def test_a_server_that_was_released_is_taken_over_at_once(living: Living, tmp_path: Path) -> None:
    dead = Dead(tmp_path, ELSEWHERE, released=True)
    living.look()
    assert dead.is_gone
    living.check(events=3)


# the clock may have been ahead when it was written
@pytest.mark.parametrize("way", [1, -1])
def test_a_server_of_another_host_is_dead_when_its_lock_was_left_alone_for_long_enough(
    living: Living, tmp_path: Path, way: int
) -> None:
    dead = Dead(tmp_path, ELSEWHERE)
    living.look()
    age(dead.lock, way * (SILENCE_SECONDS - 5))
    living.look()
    assert dead.path.exists()
    age(dead.lock, way * (SILENCE_SECONDS + 5))
    living.look()
    assert dead.is_gone
    living.check(events=3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"boot":"","released":0,"bytes":1e999}',
        '{"boot":3',
        '{"boot":"a"}',
        "[]",
        "\0" * 80,
    ],
)
def test_a_lock_that_tells_nothing_is_that_of_an_unknown_host(
    living: Living, tmp_path: Path, text: str
) -> None:
    dead = Dead(tmp_path)
    dead.lock.write_text(text)
    living.look()
    assert dead.path.exists()
    age(dead.lock, SILENCE_SECONDS + 5)
    living.look()
    living.check(events=3)


def test_a_server_without_a_lock_is_dead_when_nothing_in_it_changed_for_long_enough(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path)
    dead.lock.unlink()
    age_directories(dead.path, SILENCE_SECONDS + 5)
    (slot,) = (dead.path / PENDING).iterdir()
    age(slot, SILENCE_SECONDS - 5)
    living.look()
    assert dead.path.exists()
    assert not dead.lock.exists(), "nobody but its owner makes it"
    age(slot, SILENCE_SECONDS + 5)
    living.look()
    assert dead.is_gone
    living.check(events=3)


def test_a_lock_that_is_held_is_respected_however_silent_its_owner(
    living: Living, tmp_path: Path
) -> None:
    other = ServerDirectory.make(str(tmp_path))
    other._say(Sign(ELSEWHERE, size_bytes=1234))
    age(Path(other.path, LOCK), 10 * SILENCE_SECONDS)
    living.look()
    assert os.path.exists(other.path)
    assert living.page.rows[1].cells[metrics.OTHERS_BYTES] == 1234


@pytest.mark.parametrize("name", ["leader.lock", "a stream's lock", "none"])
def test_what_one_server_of_an_earlier_version_left_is_taken_over_unless_it_lives(
    living: Living, tmp_path: Path, name: str
) -> None:
    dead = Dead(tmp_path)
    dead.leave_journal(journal_of(batches.batch(range(1, 6), stream=OTHER)))
    stream = dead.path / journal.DIRECTORY / dead.batch.stream
    stream.rename(stream.with_name(OTHER))
    for area in dead.path.iterdir():
        if area.is_dir():
            area.rename(tmp_path / area.name)
    dead.lock.rename(tmp_path / "leader.lock")
    dead.path.rmdir()
    (tmp_path / journal.DIRECTORY / OTHER / LOCK).touch()
    held = {
        "leader.lock": tmp_path / "leader.lock",
        "a stream's lock": tmp_path / journal.DIRECTORY / OTHER / LOCK,
    }
    if name in held:
        with held[name].open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            living.look()
            assert living.adopted == 0
    living.look()
    living.check(events=8, files=2)
    assert os.listdir(tmp_path) == [SERVERS]


def test_an_earlier_layout_behind_the_operators_link_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    dlq_dir = tmp_path / "dlq"
    dlq_dir.symlink_to(tmp_path / "disk")
    living, dead = Living(dlq_dir), Dead(dlq_dir)
    (dead.path / PENDING).rename(dlq_dir / PENDING)
    living.look()
    living.check(events=3)
    assert os.listdir(dlq_dir) == [SERVERS]


def test_a_dead_server_goes_where_removed_files_stay_while_they_are_open(
    living: Living, tmp_path: Path, silly_renames: None
) -> None:
    dead = Dead(tmp_path)
    living.look()
    assert dead.is_gone


def test_an_empty_server_goes_where_removed_files_stay_while_they_are_open(
    tmp_path: Path, silly_renames: None
) -> None:
    ServerDirectory.make(str(tmp_path)).release()
    assert os.listdir(tmp_path / SERVERS) == []


@pytest.mark.parametrize("hours", [0, 1000])
def test_a_batch_that_is_in_the_journal_and_in_the_dlq_of_a_dead_server_is_adopted_once(
    living: Living, tmp_path: Path, hours: int
) -> None:
    dead = Dead(tmp_path)
    dead.leave_journal(journal_of(dead.batch))
    (slot,) = (dead.path / PENDING).iterdir()
    slot.rename(slot.with_name(slot_of(time.time() - 3600 * hours)))
    living.look()
    assert dead.is_gone
    living.check(events=3)


def test_an_unreadable_file_of_a_dead_server_replaces_none_that_its_journal_became(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path)
    dead.leave_journal(journal_of(dead.batch))
    (theirs,) = dead.dlq.every()
    Path(theirs.path).write_bytes(b"")
    living.look()
    living.check(events=6, files=2)
    assert {os.stat(entry.path).st_size > 0 for entry in living.dlq.every()} == {True, False}


def test_a_bad_range_that_a_dead_server_has_put_aside_is_adopted_once(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path)
    data = bytearray(journal_of(dead.batch))
    (group,) = journal_file.parse(bytes(data)).groups
    data[group.start + 40] ^= 1
    dead.leave_journal(bytes(data))
    (damage,) = recover_journal(bytes(data), dead.batch.stream, 1, living.settings).damages
    dead.dlq.put_aside(*damage)
    living.look()
    assert dead.is_gone
    assert ledger.in_dlq(living.page.used_rows()) == living.dlq.walk()
    assert len(living.dlq.scan(QUARANTINE, EVER).due) == 1
    assert not os.path.exists(Path(living.dlq.root, QUARANTINE, damage.name))


def test_what_no_rule_knows_is_left_alone_and_named_once(
    living: Living, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = Dead(tmp_path)
    (dead.path / "notes.txt").write_text("mine")
    (dead.path / PENDING / "stray").write_text("mine too")
    for _ in range(3):
        living.look()
    living.lead(slot=2)
    living.look()
    left = dead.path.with_name(f"{dead.path.name}.1")
    assert sorted(path.name for path in left.rglob("*") if path.is_file()) == [
        LOCK,
        "notes.txt",
        "stray",
    ]
    living.check(events=3)
    told = [record for record in caplog.records if record.message == "files_left_alone"]
    assert len(told) == 2, "by each leader"


def test_what_is_passed_over_is_counted_by_reason(living: Living, tmp_path: Path) -> None:
    Dead(tmp_path)
    (tmp_path / SERVERS / "link").symlink_to("/nowhere")
    (Path(living.own.path) / "notes.txt").write_text("mine")
    Path(living.own.path, PENDING, "notes").symlink_to("/nowhere")
    living.look()
    totals = metrics.totals(living.page)
    counted = {reason: totals[at] for reason, at in metrics.FILES_ASIDE.items()}
    assert counted == {"not_ours": 0, "later_version": 0, "not_followed": 2, "unknown": 1}


def test_a_server_whose_lock_can_not_be_opened_hides_none_behind_it(
    living: Living, tmp_path: Path
) -> None:
    bad, good = sorted((Dead(tmp_path) for _ in range(2)), key=lambda dead: dead.path)
    bad.lock.unlink()
    bad.lock.mkdir()  # which opening for writing refuses
    age(bad.lock, SILENCE_SECONDS + 5)
    living.look()
    assert bad.path.exists()
    assert good.is_gone


def test_a_slot_that_can_not_be_moved_stays_and_hides_no_other_server(
    living: Living, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = sorted((Dead(tmp_path) for _ in range(2)), key=lambda dead: dead.path)
    (slot,) = (bad.path / PENDING).iterdir()
    slot.rename(slot.with_name("2025-01-01T00"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refusing("2025-01-01T00"))
        living.look()
    living.check(events=3)
    assert good.is_gone
    living.look()
    assert bad.is_gone
    living.check(events=6, files=2)


def test_a_slot_that_can_not_be_moved_hides_nothing_else_of_its_server(
    living: Living, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Dead(tmp_path)
    (slot,) = (dead.path / PENDING).iterdir()
    slot.rename(slot.with_name("2025-01-01T00"))
    later = batches.batch(range(4, 9), seq=2)
    dead.dlq.write(later, dlq_file.pack(later, "put_failed", ""))
    dead.batch = batches.batch(range(9, 11), seq=3)
    dead.leave_journal(journal_of(dead.batch))
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refusing("2025-01-01T00"))
        living.look()
        living.check(events=5 + 2, files=2)
        living.look()
    living.look()
    assert dead.is_gone
    living.check(events=3 + 5 + 2, files=3)


def refusing(name: str) -> Callable[[str, str], None]:
    """Return an ``os.rename`` that does not move what has this name."""
    original = os.rename

    def rename(source: str, target: str) -> None:
        if os.path.basename(source) == name:
            raise PermissionError(errno.EACCES, "Permission denied", source)
        original(source, target)

    return rename


def test_a_dlq_of_our_own_that_can_not_be_written_ends_the_look(
    living: Living, tmp_path: Path
) -> None:
    dead = Dead(tmp_path)
    pending = Path(living.dlq.root, PENDING)
    pending.rmdir()
    pending.write_bytes(b"")
    with pytest.raises(DiskError, match="scan"):
        living.look()
    assert not dead.is_gone


class MortalDisk:
    """Kills the process before its n-th rename."""

    def __init__(self, renames: int) -> None:
        self._left = renames
        self._rename = os.rename

    def rename(self, source: str, target: str) -> None:
        if not self._left:
            raise Killed
        self._left -= 1
        self._rename(source, target)


@contextlib.contextmanager
def killed_before_rename(number: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", MortalDisk(number).rename)
        yield


def close_locks(dlq_dir: Path, but: str) -> None:
    """Close what a dead process would have had open."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.startswith(str(dlq_dir)) and not path.startswith(but):
                os.close(descriptor)


def leave_much(dlq_dir: Path) -> None:
    """Leave two slots, a quarantine and a journal."""
    dead = Dead(dlq_dir)
    (slot,) = (dead.path / PENDING).iterdir()
    slot.rename(slot.with_name("2025-01-01T00"))
    second = batches.batch(range(1, 3), seq=2)
    dead.dlq.write(second, dlq_file.pack(second, "put_failed", ""))
    (dead.path / QUARANTINE / f"1763017800_web-1-{OTHER}_000009.4.jsonl.gz").write_bytes(b"x")
    dead.batch = batches.batch(range(1, 6), stream=OTHER)
    dead.leave_journal(journal_of(dead.batch))


def test_a_worker_that_is_killed_at_any_rename_leaves_what_the_next_counts_once(
    tmp_path: Path,
) -> None:
    for renames in itertools.count():
        dlq_dir = tmp_path / str(renames)
        living = Living(dlq_dir)
        leave_much(dlq_dir)
        killed = False
        try:
            with killed_before_rename(renames):
                living.takeover.turn()
        except Killed:
            killed = True
            close_locks(dlq_dir, living.own.path)
        living.lead(slot=2)
        living.look()
        living.check(events=3 + 2 + 4 + 5, files=4)
        if not killed:
            break
    assert renames == 1 + 3 + 1, "the server, three slots, a stream"


def test_a_worker_that_is_killed_while_it_counts_leaves_what_the_next_counts_once(
    tmp_path: Path,
) -> None:
    for writes in itertools.count():
        dlq_dir = tmp_path / str(writes)
        living = Living(dlq_dir)
        leave_much(dlq_dir)
        cells = Cells(living.page.rows[1].cells.tolist())
        living.page.rows[1] = Row(cells)  # type: ignore[arg-type]
        living.lead()
        cells.writes_left = writes
        with contextlib.suppress(Killed):
            living.takeover.turn()
        done = cells.writes_left > 0
        cells.writes_left = 1000
        Ledger(Metrics(living.page.rows[1])).orphan()  # as the arbiter does
        living.lead(slot=2)
        living.look()
        living.check(events=3 + 2 + 4 + 5, files=4)
        if done:
            break
    assert writes > 20


def test_two_servers_that_look_at_once_adopt_everything_once(tmp_path: Path) -> None:
    first, second = Living(tmp_path), Living(tmp_path)
    for _ in range(5):
        Dead(tmp_path)
    first.takeover.turn()
    second.takeover.turn()
    first.takeover.turn()
    assert first.adopted + second.adopted == 15
    assert (first.dlq.walk().files, second.dlq.walk().files) == (5, 0)


def test_what_is_taken_over_counts_no_more_as_another_servers_when_it_counts_as_ours(
    living: Living, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ServerDirectory.make(str(tmp_path))
    dlq = DeadLetterQueue(other.path)
    batch = batches.batch(range(1, 4))
    size = dlq.write(batch, dlq_file.pack(batch, "put_failed", ""))
    other.touch(size)
    admission = living.admission
    living.look()
    living.page.rows[1].change({metrics.ACCEPTED: 0})  # it is in use
    assert admission.max_bytes == living.settings.dlq_max_size_bytes - size
    other.close()
    seen = []
    adopt = Ledger.adopt

    def counted(*args: int) -> None:
        seen.append(admission.max_bytes)
        adopt(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "adopt", counted)
    living.look()
    living.check(events=3)
    assert set(seen) == {living.settings.dlq_max_size_bytes}


def test_what_died_before_its_directory_had_a_name_is_removed_and_what_lives_is_not(
    living: Living, tmp_path: Path
) -> None:
    places = [tmp_path / SERVERS, Path(Dead(tmp_path).path, journal.DIRECTORY)]
    for place in places:
        (place / f".{OTHER}").mkdir(parents=True)
    hidden = places[0] / f".{OTHER}"
    for lock in (False, True):
        if lock:
            hidden.mkdir()
            (hidden / LOCK).touch()
        living.look()
        assert hidden.exists(), "it may be about to get its name"
        age(hidden / LOCK if lock else hidden, SILENCE_SECONDS + 5)
        living.look()
        assert not hidden.exists()
    assert sorted(os.listdir(tmp_path / SERVERS)) == [os.path.basename(living.own.path)]
    assert list(Path(living.own.path).glob("journal/*")) == []
    living.check(events=3)


@pytest.mark.parametrize("is_empty", [True, False])
def test_who_has_given_a_directory_up_releases_nothing_there(
    tmp_path: Path, is_empty: bool
) -> None:
    own = ServerDirectory.make(str(tmp_path))
    if not is_empty:
        batch = batches.batch(range(1, 4))
        DeadLetterQueue(own.path).write(batch, dlq_file.pack(batch, "put_failed", ""))
    own.close()
    sign = sign_of(own.path)
    own.release()
    assert sign_of(own.path) == sign
    assert not sign.released


def test_a_taken_directory_names_the_boot_of_its_taker(living: Living, tmp_path: Path) -> None:
    dead = Dead(tmp_path, ELSEWHERE, released=True)
    taken = ServerDirectory.take(str(dead.path))
    assert taken
    assert sign_of(taken.path) == Sign(boot_id())
    assert not dead.path.exists(), "an owner that wakes up finds nothing under its paths"
    living.look()
    assert living.adopted == 0, "its taker lives"
    taken.close()  # and has died
    living.look()
    living.check(events=3)
