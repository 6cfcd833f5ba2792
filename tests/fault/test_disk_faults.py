"""The disk under the journals fills up, fails and turns read-only while the server runs.

The claims are the same for every fault: what the disk refuses is answered with 503 and the
reason, which /ready and the metrics name; nothing accepted is lost or doubled, nothing
refused is stored; once the disk works the server goes on without a restart.
"""

import os
import resource
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve, need
from tests.support import accounting
from tests.support.client import Client
from tests.support.disks import abort, ext4, fill, fill_files, read_only, tmpfs
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import Server
from tests.support.strace import injected, strace_path

#: Of a file system that is to run out of them; a server of one worker needs some twenty.
_INODES = 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "small-disk", 2 * 1024 * 1024):
        yield tmp_path / "small-disk"


def refused(client: Client, server: Server, reason: str, count: int = 5, words: str = "") -> bool:
    """Send events; tell whether they were refused, which must be for this reason, in words."""
    before = server.rejected(reason)
    answer = client.send(server, count)
    if answer.status == 202:
        return False
    assert answer.status == 503, answer
    assert int(answer.headers["Retry-After"]) >= 1
    assert words in answer.json["description"], answer
    assert server.rejected(reason) == before + 1
    return True


def named(client: Client, server: Server, reason: str, words: str = "") -> bool:
    """Tell whether /ready names the fault right after a request was refused for it."""
    return refused(client, server, reason, words=words) and reason in server.problems()


def accepts(client: Client, server: Server) -> bool:
    return client.send(server, 5).status == 202


def journal_paths(server: Server) -> tuple[str, ...]:
    """Return the paths of the journals of the newest stream: the one there is, and the next."""
    *_, stream = sorted(path for path in (server.own_dir / "journal").iterdir())
    return tuple(str(stream / f"{number:06d}.journal") for number in range(1, 30))


def goes_on(
    client: Client,
    server: Server,
    bucket: Bucket,
    *,
    recovers: bool = False,
    in_doubt: Iterable[str] = (),
) -> None:
    """Assert that all is well again; after a kill, once the journals are recovered."""

    def well() -> bool:
        """Tell whether events are accepted; another worker's look at the disk may be older."""
        return accepts(client, server) and not {"dlq_full", "disk_error"} & set(server.problems())

    server.until(well, "events are accepted again")
    if recovers:
        server.until(lambda: server.events("journals_recovered"), "the journals are recovered")
    server.until(lambda: not server.metrics()["dlq_files_current"], "the DLQ empties")
    accounting.check_equation(server.metrics())
    server.must_stop()
    accounting.check(client.accepted, bucket.stored(), unanswered=in_doubt)
    assert not list(Path(server.environ["DLQ_DIR"]).glob("servers/*/journal/*/*")), (
        "all are deleted"
    )


# --- full


def test_a_group_that_does_not_fit_the_disk_is_refused_and_the_next_that_fits_is_taken(
    small_disk: Path, serve: Serve, bucket: Bucket
) -> None:
    server = serve(DLQ_DIR=str(small_disk / "dlq"), BATCH_SIZE="10000", FLUSH_INTERVAL="2s")
    client = Client(size_bytes=2000)

    def met() -> bool:
        """Tell whether an append has met the full disk, before the watch has noticed it."""
        client.must_send(server, count=5)
        ballast = fill(small_disk)
        try:
            assert refused(client, server, "dlq_full", words="has no room left")
            assert "dlq_full" in server.problems()
            return any("append" in line["error"] for line in server.events("disk_full"))
        finally:
            ballast.unlink()
            eventually(lambda: accepts(client, server), 20, "there is room again")

    assert server.until(met, "a journal meets the full disk")
    assert server.metrics()["events_in_doubt_total"] == 0
    goes_on(client, server, bucket)


def test_what_was_accepted_before_the_disk_was_full_survives_a_kill_and_the_outage_of_s3(
    small_disk: Path, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    settings = {"DLQ_DIR": str(small_disk / "dlq"), "BATCH_SIZE": "10"}
    server = serve(via=s3, S3_APP_RETRIES="0", S3_TIMEOUT="1s", **settings)
    s3.fail("hang")
    client = Client(size_bytes=500)
    client.must_send(server, count=5, requests=5)
    ballast = fill(small_disk)
    # nor can their batches be written to the DLQ
    eventually(lambda: server.events("disk_full"), 20, "the full disk is noticed")
    assert refused(client, server, "dlq_full")
    server.kill()
    s3.heal()
    ballast.unlink()
    goes_on(client, serve(via=s3, **settings), bucket, recovers=True)


def test_a_siblings_journals_are_stored_although_the_disk_has_no_room_to_copy_them(
    small_disk: Path, serve: Serve, bucket: Bucket
) -> None:
    server = serve(
        workers=2, DLQ_DIR=str(small_disk / "dlq"), BATCH_SIZE="10000", FLUSH_INTERVAL="10m"
    )
    client = Client(size_bytes=500)
    client.must_send(server, count=5, requests=8)
    ballast = fill(small_disk)
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    server.until(lambda: len(bucket.stored()) == 40, "what the dead ones had is stored")
    accounting.check(client.accepted, bucket.stored())
    ballast.unlink()
    goes_on(client, server, bucket, recovers=True)


# --- no more files


def free_files(disk: Path) -> int:
    return os.statvfs(disk).f_ffree


def test_files_are_room_as_bytes_are_and_what_empties_the_disk_needs_none(
    tmp_path: Path, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    disk = tmp_path / "disk"
    with ext4(disk, tmp_path / "disk.img", make=True, files=150):
        server = serve(
            via=s3, DLQ_DIR=str(disk / "dlq"), BATCH_SIZE="1", S3_APP_RETRIES="0", DLQ_MAX_AGE="1s"
        )
        s3.fail("503")
        client = Client()

        def full() -> bool:
            return client.send(server, 1).status != 202

        server.until(full, "there is no room for more files")
        assert refused(client, server, "dlq_full", count=1, words="no more files")
        assert "dlq_full" in server.problems()
        server.until(server.all_on_disk, "all is in the DLQ")
        assert free_files(disk) > 0, "the last ones were never used"
        assert server.events("disk_full") == []
        # somebody else takes them
        ballast = fill_files(disk)
        assert free_files(disk) == 0
        s3.heal()
        server.until(
            lambda: not server.metrics()["dlq_events_current"],
            "the DLQ empties although no file can be made",
        )
        shutil.rmtree(ballast)
        goes_on(client, server, bucket)


# --- failing


FAULTS = [
    ("journal", "write:error=EIO", "disk_error"),
    ("journal", "write:error=ENOSPC", "dlq_full"),
    ("journal", "write:error=EDQUOT", "dlq_full"),
    ("journal", "write:error=EROFS", "disk_error"),
    ("journal", "fsync:error=EIO", "disk_error"),
    ("journal", "rename:error=ENOSPC", "dlq_full"),
    ("fsync", "fdatasync:error=EIO", "disk_error"),
    ("fsync", "fsync:error=EIO", "disk_error"),
]


#: What the client is told of an error.
WORDS = {
    "EIO": "is failing",
    "ENOSPC": "has no room left",
    "EDQUOT": "quota",
    "EROFS": "is read-only",
}


@pytest.mark.parametrize(("durability", "fault", "reason"), FAULTS)
def test_a_failing_call_refuses_events_loses_none_and_is_left_again_without_a_restart(
    durability: str, fault: str, reason: str, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    need(strace_path(), "strace")
    server = serve(
        via=s3, DURABILITY=durability, BATCH_SIZE="20", FLUSH_INTERVAL="10m", S3_APP_RETRIES="0"
    )
    s3.fail("503")  # so that full batches go to the disk as well
    client = Client()
    client.must_send(server, count=5, requests=3)
    paths = journal_paths(server) if fault.startswith("write") else ()
    words = WORDS[fault.partition("error=")[2]]
    with injected(server.worker_pids(), fault, paths=paths):
        server.until(lambda: named(client, server, reason, words), "the fault is met and named")
        eventually(lambda: refused(client, server, reason), 20, "it is met again")
        accounting.check_equation(server.metrics())
    assert server.metrics()["events_in_doubt_total"] == 0
    s3.heal()
    goes_on(client, server, bucket)


def test_what_was_accepted_is_kept_when_everything_is_killed_while_the_disk_fails(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    need(strace_path(), "strace")
    server = serve(via=s3, DURABILITY="fsync", BATCH_SIZE="10", S3_APP_RETRIES="0")
    s3.fail("503")
    client = Client()
    client.must_send(server, count=5, requests=3)
    with injected(server.worker_pids(), "fsync:error=EIO", "fdatasync:error=EIO"):
        eventually(lambda: named(client, server, "disk_error"), 20, "the fault is met and named")
        server.kill()
    s3.heal()
    goes_on(client, serve(via=s3, DURABILITY="fsync"), bucket, recovers=True)


# --- in doubt


def test_a_group_that_could_not_be_cut_off_is_counted_and_may_come_back_after_a_kill(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    need(strace_path(), "strace")
    server = serve(via=s3, DURABILITY="fsync", FLUSH_INTERVAL="10m", S3_TIMEOUT="20s")
    s3.fail("hang")  # so that the journal is still needed
    client, doubtful = Client(), Client("doubtful")
    client.must_send(server, count=5)
    faults = ("fdatasync:error=EIO:when=1", "ftruncate:error=EIO", "truncate:error=EIO")
    with injected(server.worker_pids(), *faults):
        assert refused(doubtful, server, "disk_error", count=7)
        assert server.metrics()["events_in_doubt_total"] == 7
        eventually(lambda: accepts(client, server), 20, "the server goes on")
        server.kill()
    s3.heal()
    second = serve(via=s3, DURABILITY="fsync")
    goes_on(client, second, bucket, recovers=True, in_doubt=doubtful.refused)
    stored = bucket.stored()
    assert set(doubtful.refused) <= {line["body"]["n"] for line in stored}, "they did come back"
    assert len(accounting.check_ids(stored)) == 3, "two streams of the first life, one more"


def test_what_could_not_be_cut_off_is_cut_off_once_the_disk_lets_it(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    need(strace_path(), "strace")
    server = serve(via=s3, DURABILITY="fsync", FLUSH_INTERVAL="10m", S3_TIMEOUT="20s")
    s3.fail("hang")  # so that the journal is still needed
    client, doubtful = Client(), Client("doubtful", size_bytes=1000)
    client.must_send(server, count=5)
    (journal,) = (server.own_dir / "journal").glob("*/*.journal")
    kept_bytes = journal.stat().st_size
    (worker,) = server.worker_pids()
    # no file may grow further: the first part of the group is written
    limits = resource.prlimit(worker, resource.RLIMIT_FSIZE, (kept_bytes + 2000, -1))
    with injected([worker], "ftruncate:error=EIO", "truncate:error=EIO"):
        assert refused(doubtful, server, "disk_error", count=7, words="may not grow further")
        assert server.metrics()["events_in_doubt_total"] == 7
        assert journal.stat().st_size == kept_bytes + 2000
        resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
        eventually(lambda: accepts(client, server), 20, "the server goes on")
        assert journal.stat().st_size == kept_bytes + 2000
    eventually(lambda: journal.stat().st_size == kept_bytes, 20, "it is cut off")
    server.kill()
    s3.heal()
    second = serve(via=s3, DURABILITY="fsync")
    goes_on(client, second, bucket, recovers=True)
    assert second.events("journal_damaged") == []
    assert len(accounting.check_ids(bucket.stored())) == 3, "two streams of the first life"


# --- read-only


def test_a_directory_that_turns_read_only_is_left_again_without_a_restart(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="20", FLUSH_INTERVAL="10m", S3_APP_RETRIES="0")
    s3.fail("503")
    client = Client()
    client.must_send(server, count=5, requests=3)
    with read_only(server.dlq_dir):
        server.until(lambda: named(client, server, "disk_error"), "it is met and named")
        accounting.check_equation(server.metrics())
    s3.heal()
    goes_on(client, server, bucket)


@pytest.mark.parametrize("inodes", [False, True])
def test_a_server_starts_on_a_full_disk_refuses_events_and_empties_it(
    tmp_path: Path, serve: Serve, s3: FaultyS3, bucket: Bucket, inodes: bool
) -> None:
    disk = tmp_path / "disk"
    with tmpfs(disk, 4 * 1024 * 1024, _INODES if inodes else 0):
        settings = {"DLQ_DIR": str(disk / "dlq"), "BATCH_SIZE": "10", "FLUSH_INTERVAL": "10m"}
        first = serve(via=s3, **settings)
        client = Client()
        client.must_spill(first, s3, count=10, requests=5)
        client.must_send(first, count=3)
        first.kill()
        ballast = (fill_files if inodes else fill)(disk)

        second = serve(via=s3, workers=2, **settings)
        eventually(lambda: named(client, second, "dlq_full"), 20, "it refuses events by name")
        s3.heal()
        second.until(lambda: len(bucket.stored()) == 53, "all is stored")
        (shutil.rmtree if inodes else os.unlink)(ballast)
        second.until(lambda: accepts(client, second), "there is room")
        accounting.check_equation(second.metrics())
        assert second.metrics()["events_adopted_total"] == 53
        second.must_stop()
        accounting.check(client.accepted, bucket.stored())


def test_a_server_starts_on_a_read_only_disk_and_serves_as_soon_as_it_is_writable(
    small_disk: Path, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    settings = {"DLQ_DIR": str(small_disk / "dlq"), "BATCH_SIZE": "10"}
    first = serve(via=s3, **settings)
    client = Client()
    client.must_spill(first, s3, count=10, requests=5)
    first.kill()
    s3.heal()
    with read_only(small_disk):
        second = serve(via=s3, workers=2, **settings)
        eventually(lambda: named(client, second, "disk_error"), 20, "it refuses events by name")
    second.until(lambda: accepts(client, second), "it serves")
    second.until(second.settled, "all is stored")
    accounting.check_equation(second.metrics())
    second.must_stop()
    accounting.check(client.accepted, bucket.stored())


def test_with_fsync_a_file_system_that_breaks_down_has_kept_what_was_accepted(
    tmp_path: Path, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    disk, image = tmp_path / "disk", tmp_path / "disk.img"
    settings = {"DURABILITY": "fsync", "DLQ_DIR": str(disk / "dlq"), "BATCH_SIZE": "20"}
    client = Client()
    with ext4(disk, image, make=True):
        server = serve(via=s3, FLUSH_INTERVAL="10m", S3_APP_RETRIES="0", **settings)
        s3.fail("503")
        client.must_send(server, count=5, requests=10)
        abort(disk)
        server.until(lambda: named(client, server, "disk_error"), "it is met and named")
        server.kill()
    s3.heal()
    with ext4(disk, image, make=False):
        goes_on(client, serve(via=s3, **settings), bucket, recovers=True)


# --- deleted


@pytest.mark.parametrize("deleted", [pytest.param("the lock", marks=pytest.mark.quick), "all"])
def test_a_living_stream_that_somebody_deletes_loses_nothing_and_the_server_goes_on(
    deleted: str, serve: Serve, bucket: Bucket
) -> None:
    server = serve(BATCH_SIZE="10000", FLUSH_INTERVAL="60s")
    client = Client()
    assert accepts(client, server)
    (stream,) = (server.own_dir / "journal").iterdir()
    if deleted == "all":
        shutil.rmtree(stream)
    else:
        (stream / "lock").unlink()
    server.until(lambda: server.events("journal_lost"), "the worker notices")
    server.until(bucket.stored, "what was accepted is stored at once")
    server.until(lambda: accepts(client, server), "events are accepted again")
    goes_on(client, server, bucket)
