"""A DLQ_DIR in which others have put files, links and pipes, or which others have made.

Nothing of it is obeyed, sent, deleted or counted as stored, and nothing keeps the server
from what is its own.
"""

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from estat.disk import dlq_file
from estat.disk.slots import slot_of
from tests.conftest import Serve
from tests.fault.test_dlq import left_behind
from tests.support import accounting, forged, forgeries
from tests.support.client import Client
from tests.support.dlq_dir import dlq_paths
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import BIN, Server
from tests.unit import journals
from tests.unit.batches import STREAM, batch

REASONS = ("not_ours", "later_version")
LATER_DLQ, LATER_JOURNAL = {"estat_dlq": 2}, {"estat_journal": 2}


def estat(*arguments: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(BIN / "estat"), *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def places(root: Path, *without: Path) -> set[Path]:
    return {
        path
        for path in root.rglob("*")
        if not path.is_dir() and not any(path.is_relative_to(other) for other in without)
    }


def forge_dlq_files(dlq_dir: Path, elsewhere: Path) -> dict[Path, bytes]:
    """Write forged files into the DLQ, older than all others; return their contents by path."""
    slot = dlq_dir / "pending" / slot_of(time.time() - 7200)
    slot.mkdir(parents=True)
    changes = [
        *forged.changes(str(elsewhere)).values(),
        {"bucket": f"file:{elsewhere}"},
        {"events": 3},  # its name says ten
        LATER_DLQ,
    ]
    contents = {}
    for seq, change in enumerate(changes, 1):
        made = batch(seq=seq, opened=1763010000.0)
        path = slot / dlq_file.file_name(made)
        path.write_bytes(forged.dlq_bytes(made, **change))
        contents[path] = path.read_bytes()
    return contents


def kept(dlq_dir: Path) -> list[bytes]:
    """Return the contents of all DLQ files, whichever area and slot they are in."""
    areas = ("pending", "expired", "quarantine")
    return sorted(path.read_bytes() for area in areas for path in dlq_paths(dlq_dir, area))


def left_journals(dlq_dir: Path) -> list[bytes]:
    """Return the contents of all journals, whosever they are."""
    found = [path for path in dlq_dir.rglob("*.journal") if path.is_file()]
    return sorted(path.read_bytes() for path in found)


def forge_journals(dlq_dir: Path, elsewhere: Path) -> list[bytes]:
    """Write forged journals of dead processes; return their contents."""
    found = []
    changes = [*forged.changes(str(elsewhere)).values(), LATER_JOURNAL]
    for number, change in enumerate(changes):
        stream = f"{STREAM[:12]}{number:016x}"
        made = journals.journal(stream=stream)
        path = Path(made.write(str(dlq_dir)))
        path.write_bytes(forged.journal_bytes(made.header, range(1, 11), **change))
        found.append(path.read_bytes())
    return found


def set_aside(server: Server) -> dict[str, float]:
    """Return the events that are set aside, by reason."""
    found = server.metrics()
    names = {reason: f'dlq_events_set_aside{{reason="{reason}"}}' for reason in REASONS}
    return {reason: found[name] for reason, name in names.items()}


@pytest.mark.parametrize("more", ["nothing", "fallback", "expired", "drop_oldest"])
def test_forged_dlq_files_stay_unsent_and_hide_nothing(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path, more: str
) -> None:
    client, home = Client(), tmp_path / "home" / ".ssh"
    first = left_behind(serve, s3, 3, client)
    contents = forge_dlq_files(first.dlq_dir, home)
    before = places(tmp_path, first.dlq_dir)
    age = "1h" if more == "expired" else "8760h"
    settings = {
        "nothing": {},
        "expired": {},
        "fallback": {"FALLBACK_BUCKET": f"file:{tmp_path}/fallback"},
        # so small that all but the newest file would have to go
        "drop_oldest": {"DLQ_OVERFLOW": "drop_oldest", "DLQ_MAX_SIZE_BYTES": "4096"},
    }[more]
    second = serve(via=s3, DLQ_MAX_AGE=age, **settings)
    eventually(
        lambda: len(bucket.stored()) == 30, 30, "what is ours is stored", last_words=second.log_text
    )
    expected = {"not_ours": 10 * (len(contents) - 1), "later_version": 10}
    eventually(lambda: set_aside(second) == expected, 30, "the others are set aside")
    s3.fail("503")
    client.must_send(second, count=10)
    eventually(
        lambda: second.metrics()["dlq_events_current"] == 10, 40, "an outage finds the DLQ full"
    )
    s3.heal()
    eventually(lambda: len(bucket.stored()) == 40, 40, "what is ours is stored again")
    accounting.check(client.accepted, bucket.stored())
    found = second.metrics()
    assert (found["dlq_files_current"], found["dlq_events_current"]) == (len(contents), 0)
    accounting.check_equation(found)
    assert found['dlq_files_set_aside{reason="later_version"}'] == 1
    told = second.events("dlq_file_set_aside")
    assert sorted(line["reason"] for line in told) == ["later_version", "not_ours"]
    assert all(line["error"] for line in told)
    assert second.stop() == 0
    stopped = accounting.check_stopped(second.logs())
    assert (stopped["set_aside"], stopped["in_dlq"]) == (10 * len(contents), 0)
    assert (stopped["handed_over"], stopped["dropped"]) == (0, 0)
    assert kept(first.dlq_dir) == sorted(contents.values())
    assert bucket.objects("raw_dlq/") == []
    assert not home.parent.exists()
    new = places(tmp_path, first.dlq_dir) - before
    assert {path.suffix for path in new if "fallback" not in path.parts} <= {".log"}
    assert not [path for path in new if path.suffix == ".gz"]


@pytest.mark.quick
def test_forged_journals_stay_unsent_and_hide_nothing(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    client, home = Client(), tmp_path / "home" / ".ssh"
    first = serve(via=s3, BATCH_SIZE="1000", FLUSH_INTERVAL="10m")
    client.must_send(first, count=10, requests=3)
    first.kill()
    contents = forge_journals(first.dlq_dir, home)
    before = places(tmp_path, first.dlq_dir)
    second = serve(via=s3, workers=2)
    eventually(
        lambda: len(bucket.stored()) == 30, 30, "what is ours is stored", last_words=second.log_text
    )
    client.must_send(second, count=10)
    second.kill_worker()
    eventually(lambda: len(bucket.stored()) == 40, 30, "that of a killed worker too")
    eventually(
        lambda: second.metrics()["events_pending"] == second.metrics()["dlq_files_current"] == 0,
        30,
        "the accounting closes",
        last_words=second.log_text,
    )
    expected = {"not_ours": 10 * (len(contents) - 1), "later_version": 10}
    eventually(lambda: set_aside(second) == expected, 30, "the next leader has met them, too")
    accounting.check_equation(second.metrics())
    told = [line["reason"] for line in second.events("journal_set_aside")]
    assert all(1 <= told.count(reason) <= 3 for reason in REASONS), "once for each leader"
    assert second.events("recovery_failed_unexpectedly") == []
    assert second.stop() == 0
    accounting.check_stopped(second.logs())
    accounting.check(client.accepted, bucket.stored())
    assert left_journals(first.dlq_dir) == sorted(contents)
    assert bucket.objects("raw_dlq/") == []
    assert {path.suffix for path in places(tmp_path, first.dlq_dir) - before} <= {".log"}


def test_a_journal_of_a_directory_that_is_not_named_waits_in_the_dlq_for_a_person(
    serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    elsewhere = f"file:{tmp_path}/elsewhere"
    dlq_dir = tmp_path / "dlq"
    journals.journal(bucket=elsewhere).write(str(dlq_dir))
    server = serve()
    eventually(lambda: server.events("dlq_file_set_aside"), 30, "it is recovered, and refused")
    assert server.stop() == 0
    assert accounting.check_stopped(server.logs())["set_aside"] == 10
    assert not (tmp_path / "elsewhere").exists()
    assert bucket.stored() == []

    refused = estat("dlq", "replay", env=server.environ)
    assert (refused.returncode, "RAW_BUCKET" in refused.stdout) == (1, True)
    stored = estat("dlq", "replay", "--also", elsewhere, env=server.environ)
    assert stored.returncode == 0, stored
    assert len(list((tmp_path / "elsewhere").rglob("*.jsonl.gz"))) == 1
    assert dlq_paths(dlq_dir) == []


def plant_all(root: Path, target: Path) -> set[str]:
    """Put every forgery into a server's directory; return the names of those that have to stay."""
    place = forgeries.Place(root, target)
    planted = {kind: forgeries.plant(place, kind) for kind in forgeries.kinds()}
    return {path.name for kind, path in planted.items() if kind not in forgeries.UNREADABLE}


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*")}


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
def test_no_forgery_is_obeyed_or_followed_or_stops_the_server(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path, when: str
) -> None:
    client, target = Client(), tmp_path / "target"
    forgeries.make_target(target)
    before = forgeries.snapshot(target)
    first = left_behind(serve, s3, 3, client)
    (dead,) = (first.dlq_dir / "servers").iterdir()
    aside = dead.rename(tmp_path / dead.name)
    stay = plant_all(aside, target)
    if when == "before the start":
        aside.rename(dead)
    second = serve(via=s3)
    if when == "while it runs":
        aside.rename(dead)
    sent = len(client.accepted)
    eventually(
        lambda: len(bucket.stored()) == sent,
        40,
        "what is ours is stored",
        last_words=second.log_text,
    )
    if when == "before the start":
        assert "is passed over" in str(second.events("dlq_dir_not_safe"))
    for command in (["replay", "--while-running"], ["replay", "--dry-run"]):
        done = estat("dlq", *command, env=second.environ)
        assert "Traceback" not in done.stderr, done
    client.must_send(second, count=10)
    eventually(
        lambda: len(bucket.stored()) == sent + 10, 30, "it serves", last_words=second.log_text
    )
    assert second.events("replay_failed_unexpectedly") == []
    assert second.stop() == 0
    accounting.check_stopped(second.logs())
    accounting.check(client.accepted, bucket.stored())
    assert stay <= names_in(second.dlq_dir)
    assert forgeries.snapshot(target) == before
    assert not [each for each in bucket.objects("raw_dlq/") if forgeries.SECRET in each.body]


def test_a_server_does_not_start_where_its_directories_would_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dlq").mkdir()
    (tmp_path / "dlq" / "servers").symlink_to(tmp_path / "elsewhere")
    server = Server(tmp_path, {"RAW_BUCKET": "events"}).launch()
    assert server.wait() == 2
    assert "servers: not followed: a symbolic link" in server.log_text()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["pending", "expired", "quarantine", "journal", "leader.lock"])
def test_areas_of_an_earlier_version_that_lead_elsewhere_are_passed_over(
    serve: Serve, bucket: Bucket, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "elsewhere"
    (target / "2025-11-13T07").mkdir(parents=True)
    journals.journal().write(str(target))
    before = places(target)
    (tmp_path / "dlq").mkdir()
    (tmp_path / "dlq" / name).symlink_to(target / "journal" if name == "journal" else target)
    server = serve()
    Client().must_send(server, count=10)
    eventually(lambda: len(bucket.stored()) == 10, 30, "it serves", last_words=server.log_text)
    assert server.stop() == 0
    assert accounting.check_stopped(server.logs())["adopted"] == 0
    assert places(target) == before


def test_a_dlq_dir_may_be_the_operators_link(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "dlq").symlink_to(tmp_path / "disk")
    client = Client()
    left_behind(serve, s3, 2, client)
    second = serve(via=s3)
    eventually(second.settled, 30, "all is stored", last_words=second.log_text)
    assert second.stop() == 0
    accounting.check_stopped(second.logs())
    accounting.check(client.accepted, bucket.stored())


def test_a_takeover_obeys_nothing_and_deletes_nothing_that_is_not_the_servers(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    shared, home = tmp_path / "shared", tmp_path / "home"
    settings = {"DLQ_DIR": str(shared)}
    dies = serve(via=s3, BATCH_SIZE="10", FLUSH_INTERVAL="10m", **settings)
    s3.fail("503")
    client = Client()
    client.must_send(dies, count=10, requests=3)
    eventually(dies.all_on_disk, 20, "the batches are in the DLQ")
    client.must_send(dies, count=3)
    dies.kill()
    (dead,) = (shared / "servers").iterdir()
    contents = forge_dlq_files(dead, home)
    written = forge_journals(dead, home)
    link = dead / "pending" / "2025-11-13T07"
    link.symlink_to(home)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_bytes(b"precious")
    (shared / "servers" / f"{STREAM[:12]}{'0' * 16}").symlink_to(precious)

    s3.heal()
    lives = serve(via=s3, DLQ_MAX_AGE="8760h", **settings)
    eventually(
        lambda: len(bucket.stored()) == 33,
        30,
        "what was the dead one's is stored",
        last_words=lives.log_text,
    )
    eventually(lambda: lives.metrics()["dlq_files_current"] == len(contents), 30, "the rest waits")
    accounting.check_equation(lives.metrics())
    assert lives.events("takeover_failed_unexpectedly") == []
    assert lives.stop() == 0
    accounting.check_stopped(lives.logs())
    accounting.check(client.accepted, bucket.stored())
    assert left_journals(shared) == sorted(written)
    assert kept(shared) == sorted(contents.values())
    assert [path for path in shared.rglob("*") if path.name == link.name and path.is_symlink()]
    assert places(precious) == {precious / "data"}
    assert not home.exists()


# --- modes


@pytest.fixture(params=[0o000, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The umask of the server, which it has from this process."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_what_is_made_in_dlq_dir_is_for_its_user_alone(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path, umask: int
) -> None:
    dlq_dir = tmp_path / "new" / "dlq"
    server = serve(via=s3, BATCH_SIZE="10", FLUSH_INTERVAL="10m", DLQ_DIR=str(dlq_dir))
    s3.fail("503")
    client = Client()
    client.must_send(server, count=10, requests=3)
    eventually(server.all_on_disk, 20, "the batches are in the DLQ")
    client.must_send(server, count=3)
    found = [dlq_dir, *dlq_dir.rglob("*")]
    assert {"lock", "leader.lock", "000004.journal"} <= {path.name for path in found}
    wrong = {
        str(path): oct(path.stat().st_mode)
        for path in found
        if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)
    }
    assert wrong == {}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) & 0o022 == 0
    s3.heal()
    assert server.stop() == 0
    accounting.check_stopped(server.logs())


def test_objects_in_a_directory_are_made_as_the_umask_says(
    serve: Serve, tmp_path: Path, umask: int
) -> None:
    server = serve(RAW_BUCKET=f"file:{tmp_path}/store")
    Client().must_send(server, count=10)
    assert server.stop() == 0
    accounting.check_stopped(server.logs())
    found = list((tmp_path / "store").rglob("*"))
    assert found
    for path in found:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == expected
