"""DLQ files from a time when the clock was ahead: counted, kept, and replayed once."""

import gzip
import json
import os
import time
import zlib
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.fault.test_dlq import left_behind
from tests.support import accounting
from tests.support.client import Client
from tests.support.dlq_dir import dlq_paths
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket

HOUR = 3600


def slot(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H", time.gmtime(unix_seconds))


def put_ahead(path: Path, seconds: int) -> None:
    """Make a DLQ file what it would be if the clock had been ahead when it was written."""
    header, end, events = gzip.decompress(path.read_bytes()).partition(b"\n")
    about = json.loads(header)
    member = gzip.compress(events)
    old = path.name.partition("_")[0]
    new = str(int(old) + seconds)
    about["name"] = about["name"].replace(old, new)
    if "/dt=" in about["key"]:
        about["key"] = about["key"].replace(old, new)
    about |= {"opened": about["opened"] + seconds, "bytes": len(member)}
    about["crc32"] = zlib.crc32(member)
    then = time.time() + seconds
    directory = path.parents[1] / slot(then)
    directory.mkdir(exist_ok=True)
    target = directory / path.name.replace(old, new)
    target.write_bytes(gzip.compress(json.dumps(about).encode() + end) + member)
    os.utime(target, (then, then))
    path.unlink()


def modify_ahead(paths: list[Path], seconds: int) -> None:
    then = time.time() + seconds
    for path in paths:
        os.utime(path, (then, then))


@pytest.mark.quick
def test_times_of_modification_alone_say_nothing(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    client = Client()
    first = left_behind(serve, s3, 5, client)
    s3.fail("503")
    modify_ahead(dlq_paths(first.dlq_dir), 3 * HOUR)
    second = serve(via=s3)
    eventually(lambda: second.metrics()["dlq_events_current"] == 50, 20, "they are taken over")
    s3.heal()
    second.must_store(client.accepted, bucket)


def test_a_stop_hands_over_what_is_ahead_by_a_day(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    client = Client()
    first = left_behind(serve, s3, 5, client)
    s3.fail("503")
    for path in dlq_paths(first.dlq_dir):
        put_ahead(path, 25 * HOUR)
    fallback = tmp_path / "fallback"
    second = serve(via=s3, FALLBACK_BUCKET=f"file:{fallback}")
    eventually(lambda: second.metrics()["dlq_events_current"] == 50, 20, "they are taken over")
    stopped = second.must_stop()
    assert (stopped["handed_over"], stopped["in_dlq"]) == (50, 0)
    lines = [
        json.loads(line)
        for path in fallback.rglob("*.jsonl.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    accounting.check(client.accepted, bucket.stored(), lines)


def test_files_that_come_from_elsewhere_while_the_server_runs_are_found_whatever_their_time(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    client = Client()
    first = left_behind(serve, s3, 5, client)
    aside = tmp_path / "aside"
    (first.own_dir / "pending").rename(aside)
    second = serve(via=s3)
    # as when a worker is killed after it has written a file and before it has counted it
    for number, path in enumerate(dlq_paths(tmp_path, "aside")):
        target = second.own_dir / "pending" / path.parent.name
        target.mkdir(exist_ok=True, parents=True)
        modify_ahead([path], number * HOUR)
        path.rename(target / path.name)
    second.until(lambda: second.metrics()["events_adopted_total"] == 50, "they are found")
    second.must_store(client.accepted, bucket)
