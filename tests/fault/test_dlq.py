"""The DLQ directory with damaged, old, poisoned files, and without room."""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve, need
from tests.support import accounting
from tests.support.client import Client
from tests.support.disks import fill, tmpfs
from tests.support.dlq_dir import dlq_files, dlq_paths, events_on_disk
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import Server


def left_behind(serve: Serve, s3: FaultyS3, batches: int, client: Client) -> Server:
    """Return a stopped server that left ``batches`` of ten events in its DLQ."""
    server = serve(via=s3, BATCH_SIZE="10", UPLOAD_QUEUE="1000")
    s3.fail("503")
    client.must_send(server, count=10, requests=batches)
    assert server.stop() == 0
    assert len(dlq_files(server.dlq_dir)) == batches + 1  # and the stream's record
    s3.heal()
    return server


def names(lines: list[dict[str, dict[str, str]]]) -> list[str]:
    return sorted(line["body"]["n"] for line in lines)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.quick
def test_damaged_files_are_quarantined_kept_for_a_person_and_never_taken_for_events(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    client = Client()
    first = left_behind(serve, s3, 9, client)
    files = [file for file in dlq_files(first.dlq_dir) if file.lines]
    size = [file.path.stat().st_size for file in files]
    flip(files[0].path, 0)  # the file is no gzip any more
    flip(files[1].path, 40)  # in its header line
    flip(files[2].path, size[2] - 60)  # in its events
    flip(files[3].path, size[3] - 1)  # in its very last byte
    files[4].path.write_bytes(files[4].path.read_bytes()[: size[4] // 2])
    files[5].path.write_bytes(files[5].path.read_bytes()[:-1])
    files[6].path.write_bytes(b"")
    stray = files[0].path.with_name("notes.txt")
    stray.write_bytes(b"what is this?\n")
    half = files[0].path.with_name(".half-written.4711-1.tmp")
    half.write_bytes(files[7].path.read_bytes())
    damaged = {file.path.name: file.path.read_bytes() for file in files[:7]}
    damaged[stray.name] = stray.read_bytes()
    whole = [line for file in files[7:] for line in file.lines]

    s3.fail("503", key=lambda key: key.startswith("raw_dlq/"))
    second = serve(via=s3)
    second.until(lambda: second.metrics()["dlq_files_quarantined_total"] == 8, "they are found")
    eventually(lambda: second.metrics()["s3_events_stored_total"] == 20, 30, "the whole are stored")
    assert {path.name for path in dlq_paths(first.dlq_dir, "quarantine")} == set(damaged)
    accounting.check_equation(second.metrics())

    s3.heal()
    second.until(second.settled, "they are handed over")
    assert {found.key: found.body for found in bucket.objects("raw_dlq/")} == {
        f"raw_dlq/{zlib.crc32(data):08x}-{name}": data for name, data in damaged.items()
    }
    assert names(bucket.stored()) == names(whole)
    found = second.metrics()
    assert found['dlq_events_dropped_total{reason="unreadable"}'] == 70
    assert found["events_adopted_total"] == 90
    accounting.check_equation(found)
    assert second.stop() == 0
    assert dlq_paths(first.dlq_dir, "quarantine") == dlq_paths(first.dlq_dir) == []
    assert accounting.check_stopped(second.logs())["dropped"] == 70


@pytest.mark.quick
def test_a_full_dlq_refuses_events_and_takes_them_again_when_s3_is_back(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, DLQ_MAX_SIZE_BYTES="40KiB", BATCH_SIZE="10")
    s3.fail("503")
    client = Client(size_bytes=200)

    def refused() -> bool:
        answer = client.send(server, 10)
        if answer.status == 202:
            return False
        assert answer.status == 503
        assert set(answer.json) == {"title", "description"}
        assert int(answer.headers["Retry-After"]) >= 1
        return True

    def full_for_good() -> bool:
        # compressed, what was accepted takes less room than it might have taken
        return refused() and server.metrics()["events_pending"] == 0 and refused()

    eventually(full_for_good, 30, "the DLQ is full")
    assert server.metrics()['http_requests_rejected_total{reason="dlq_full"}'] >= 2
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    assert sum(path.stat().st_size for path in dlq_paths(server.dlq_dir)) <= 40 * 1024
    assert set(server.problems()) == {"dlq_full", "s3_down"}

    s3.heal()
    server.until(server.settled, "the DLQ empties")
    client.must_send(server, count=10)
    server.until(server.settled, "the new ones are stored")
    assert server.problems() == []
    accounting.check(client.accepted, bucket.stored())
    accounting.check_equation(server.metrics())


def test_whatever_was_accepted_fits_into_the_dlq_however_small_the_batches(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    limit = 20 * 1024
    server = serve(
        via=s3,
        DLQ_MAX_SIZE_BYTES=str(limit),
        BATCH_SIZE="1",
        UPLOAD_QUEUE="1000",
        S3_TIMEOUT="2s",
        S3_APP_RETRIES="0",
        UPLOAD_CONCURRENCY="64",
    )
    s3.fail("hang")
    client = Client()
    eventually(lambda: client.send(server).status == 503, 30, "no more is accepted")
    eventually(lambda: server.metrics()["events_pending"] == 0, 40, "all is on disk")
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    assert sum(path.stat().st_size for path in dlq_paths(server.dlq_dir)) <= limit


def test_drop_oldest_deletes_the_oldest_files_and_counts_their_events(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    limit = 20 * 1024
    server = serve(
        via=s3,
        DLQ_OVERFLOW="drop_oldest",
        DLQ_MAX_SIZE_BYTES=str(limit),
        BATCH_SIZE="10",
        UPLOAD_CONCURRENCY="1",
        UPLOAD_QUEUE="1000",
        S3_APP_RETRIES="0",
    )
    client = Client()
    client.must_spill(server, s3, count=10, requests=100)
    found = server.metrics()
    kept = names(events_on_disk(server.dlq_dir))
    assert found['dlq_events_dropped_total{reason="overflow"}'] == 1000 - len(kept) > 0
    files = (1000 - len(kept)) / 10
    server.until(lambda: len(server.events("dlq_file_dropped")) == files, "each is told")
    accounting.check_equation(found)
    assert len(kept) == len(set(kept)) >= 10
    assert set(client.accepted[-10:]) <= set(kept), "the newest batch is there"
    assert not set(client.accepted[:10]) & set(kept), "the oldest is gone"
    assert sum(path.stat().st_size for path in dlq_paths(server.dlq_dir)) <= limit
    assert server.problems() == ["s3_down"]

    s3.heal()
    server.until(server.settled, "the DLQ empties")
    assert names(bucket.stored()) == kept
    accounting.check_equation(server.metrics())


def test_files_past_their_age_move_aside_and_are_still_stored_when_s3_is_back(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, DLQ_MAX_AGE="1s", BATCH_SIZE="10")
    s3.fail("503")
    client = Client()
    client.must_send(server, count=10, requests=3)
    server.until(lambda: server.metrics()["dlq_files_expired_total"] == 3, "all are too old")
    assert len(dlq_files(server.dlq_dir, "expired")) == 3
    assert dlq_paths(server.dlq_dir) == []
    accounting.check(client.accepted, [], events_on_disk(server.dlq_dir))
    accounting.check_equation(server.metrics())
    eventually(lambda: server.problems() == ["s3_down"], 20, "the outage is noticed")

    s3.heal()
    client.must_send(server, count=10)  # this success tells that S3 is back
    server.must_store(client.accepted, bucket)
    assert server.metrics()['dlq_events_dropped_total{reason="overflow"}'] == 0


@pytest.mark.parametrize("fault", [pytest.param("500", marks=pytest.mark.quick), "400"])
def test_a_poisoned_file_does_not_hold_up_those_behind_it(
    fault: str, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    client = Client()
    first = left_behind(serve, s3, 12, client)
    oldest = next(file for file in dlq_files(first.dlq_dir) if file.lines)
    poisoned = oldest.about["key"]
    s3.fail(fault, key=lambda key: key == poisoned)
    second = serve(via=s3)

    def only_the_poisoned_is_left() -> bool:
        # a file leaves the counters first; and this one may move while it is read, an OSError
        return [file.about["key"] for file in dlq_files(first.dlq_dir)] == [poisoned]

    second.until(only_the_poisoned_is_left, "all others are stored")
    assert second.metrics()["dlq_files_current"] == 1
    accounting.check(client.accepted, bucket.stored(), oldest.lines)
    accounting.check_equation(second.metrics())
    # and fresh ones go on beside it
    more = Client("more")
    more.must_send(second, count=10)
    eventually(lambda: second.metrics()["events_pending"] == 0, 20, "fresh ones are stored")
    accounting.check([*client.accepted, *more.accepted], bucket.stored(), oldest.lines)


def test_one_worker_alone_replays_and_puts_each_file_once(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    client = Client()
    left_behind(serve, s3, 25, client)
    before = {key: len(found) for key, found in s3.puts_by_key().items()}
    server = serve(via=s3, workers=3)
    server.until(server.settled, "the DLQ empties")
    puts = {key: len(found) - before.get(key, 0) for key, found in s3.puts_by_key().items()}
    assert puts == dict.fromkeys(puts, 1)
    assert len(puts) == 25
    accounting.check(client.accepted, bucket.stored())
    accounting.check_equation(server.metrics())


# --- a disk without room

TMPFS_BYTES = 2 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, so small that it can be filled."""
    need(Path("/bin/mount").exists() or Path("/usr/bin/mount").exists(), "mount")
    directory = tmp_path / "small-disk"
    with tmpfs(directory, TMPFS_BYTES):
        yield directory


def test_a_full_disk_refuses_events_keeps_what_it_has_and_recovers_without_a_restart(
    small_disk: Path, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(
        via=s3,
        DLQ_DIR=str(small_disk / "dlq"),
        BATCH_SIZE="10",
        S3_APP_RETRIES="0",
        S3_TIMEOUT="2s",
    )
    s3.fail("hang")
    client = Client()
    client.must_send(server, count=10, requests=4)
    ballast = fill(small_disk)
    server.until(lambda: server.events("disk_full"), "the full disk is noticed")
    assert "dlq_full" in server.problems()
    answer = client.send(server)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert server.metrics()['http_requests_rejected_total{reason="dlq_full"}'] == 1
    assert server.metrics()["events_pending"] > 0, "what the DLQ can't take stays where it is"
    accounting.check_equation(server.metrics())

    ballast.unlink()
    server.until(
        lambda: server.metrics()["events_pending"] == 0, "all is on disk once there is room"
    )
    eventually(lambda: client.send(server).status == 202, 20, "events are accepted again")
    assert "dlq_full" not in server.problems()
    s3.heal()
    server.must_store(client.accepted, bucket)
    assert len(server.events("disk_full")) == len(server.events("disk_recovered")) == 1
    assert server.stop() == 0


def test_a_disk_that_fills_up_slowly_refuses_before_it_is_full(
    small_disk: Path, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    dlq = small_disk / "dlq"
    server = serve(via=s3, DLQ_DIR=str(dlq), BATCH_SIZE="50", S3_APP_RETRIES="0")
    s3.fail("503")
    client = Client(size_bytes=2000)

    def refused() -> bool:
        return client.send(server, 50).status == 503

    os.truncate(fill(small_disk), TMPFS_BYTES - 400 * 1024)
    eventually(refused, 30, "no more is accepted")
    eventually(lambda: server.metrics()["events_pending"] == 0, 20, "all is on disk")
    assert server.events("disk_failing") == [], "the disk was never full"
    assert server.metrics()['http_requests_rejected_total{reason="dlq_full"}'] >= 1
    accounting.check(client.accepted, bucket.stored(), events_on_disk(dlq))
    s3.heal()
    server.must_store(client.accepted, bucket)


def test_a_full_disk_costs_nothing_of_what_s3_still_takes(
    small_disk: Path, serve: Serve, bucket: Bucket
) -> None:
    server = serve(DLQ_DIR=str(small_disk / "dlq"), FLUSH_INTERVAL="1s", BATCH_SIZE="1000")
    client = Client()
    client.must_send(server, count=10, requests=4)
    ballast = fill(small_disk)
    server.until(server.settled, "S3 takes what was accepted")
    eventually(lambda: client.send(server).status == 503, 20, "no new events meanwhile")
    ballast.unlink()
    eventually(lambda: client.send(server).status == 202, 20, "there is room again")
    server.must_store(client.accepted, bucket)
