"""A store that says it stored, and did not: nothing counts that is not proven, and all heals."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.support import accounting
from tests.support.client import Client
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3, as_encrypted
from tests.support.lines import gunzip_lines
from tests.support.s3 import Bucket
from tests.support.server import Server


def check_all_stored(server: Server, client: Client, bucket: Bucket) -> list[dict[str, Any]]:
    """Wait for the end of it, and read every object back: each must be whole."""
    server.until(server.settled, "everything is stored")
    accounting.check_equation(server.metrics())
    line = server.must_stop()
    assert line["stored"] == len(client.accepted)
    stored = bucket.stored()
    accounting.check(client.accepted, stored)
    for found in bucket.objects():
        assert found.metadata["bytes"] == str(len(found.body)), found.key
        assert found.metadata["events"] == str(len(found.lines)), found.key
    return stored


@pytest.mark.parametrize("fault", ["cut", "cut_then_hangs", "cut_then_resets", "flipped"])
def test_an_object_that_the_store_damaged_is_read_and_replaced(
    fault: str, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="20", S3_APP_RETRIES="1")
    client = Client()
    # nothing, the beginning, and all but the last byte
    lies = [s3.fail(fault, times=1, keeps=keeps) for keeps in (0, 60, -1)]
    client.must_send(server, count=20, requests=3)
    eventually(lambda: all(lie.hits for lie in lies), 20, "the store has lied")
    check_all_stored(server, client, bucket)
    assert len(bucket.keys("raw/")) == 3, "no object beside another"


@pytest.mark.parametrize("workers", [1, 3])
def test_an_object_that_the_store_damaged_is_replaced_by_whoever_comes_later(
    workers: int, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    first = serve(via=s3, workers=workers, BATCH_SIZE="20", S3_APP_RETRIES="0")
    client = Client()
    s3.fail("flipped", times=3)
    s3.fail("503")
    for _ in range(3):
        client.must_send(first, count=20)
    first.until(first.all_on_disk, "the batches are in the DLQ")
    assert len(bucket.keys("raw/")) == 3
    assert first.stop() == 0
    s3.heal()
    second = serve(via=s3, workers=workers)
    second.must_store(client.accepted, bucket)
    second.must_stop()


@pytest.mark.parametrize("fault", ["web_page", "says_200", "wrong_crc"])
def test_a_yes_behind_which_nothing_is_stored_is_an_outage(
    fault: str, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    # what answers every request with its page is no S3; the others only take what they are sent
    s3.fail(fault, method="*" if fault == "web_page" else "PUT")
    client.must_send(server, count=10, requests=6)
    server.until(server.all_on_disk, "the batches are in the DLQ")
    during = server.metrics()
    assert during["s3_events_stored_total"] == 0
    assert server.problems() == ["s3_down"]
    assert bucket.keys() == []
    accounting.check(client.accepted, [], events_on_disk(server.dlq_dir))
    accounting.check_equation(during)
    s3.heal()
    check_all_stored(server, client, bucket)


@pytest.mark.quick
def test_a_store_that_is_a_web_server_to_the_end_leaves_everything_on_disk(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10", FALLBACK_BUCKET=f"{bucket.name}-2")
    client = Client()
    s3.fail("web_page", method="*")
    client.must_send(server, count=10, requests=3)
    line = server.must_stop()
    assert (line["stored"], line["handed_over"]) == (0, 0), line
    assert bucket.keys() == []
    accounting.check(client.accepted, [], events_on_disk(server.dlq_dir))


@pytest.mark.quick
def test_an_object_is_proven_by_a_head_where_the_answer_proves_nothing(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    s3.answers(as_encrypted)
    client.must_send(server, count=10, requests=3)
    check_all_stored(server, client, bucket)
    assert len(s3.attempts("PUT")) == len(s3.attempts("HEAD")) == 3


def test_an_object_that_a_head_finds_only_later_counts_only_then(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    s3.answers(as_encrypted)
    lagging = s3.fail("404", method="HEAD", times=2)
    client.must_send(server, count=10)
    eventually(lambda: lagging.hits == 2, 20, "the store has denied the object")
    check_all_stored(server, client, bucket)
    assert len(bucket.keys("raw/")) == 1


def test_an_object_whose_metadata_the_store_dropped_is_told_by_its_lines(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    s3.answers(as_encrypted)
    s3.strip("x-amz-meta-")  # noqa: B005 - no text
    client.must_send(server, count=10, requests=2)
    server.until(server.settled, "everything is stored")
    server.must_stop()
    accounting.check(client.accepted, bucket.stored())
    assert [found.metadata for found in bucket.objects()] == [{}, {}]


def test_a_streams_record_that_was_cut_off_is_replaced(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3)
    client = Client()
    client.must_send(server, count=10)
    server.until(server.settled, "everything is stored")
    lie = s3.fail("cut_then_hangs", key=lambda key: key.startswith("raw_streams/"), times=1)
    assert server.stop() == 0
    assert lie.hits == 1
    s3.heal()
    again = serve(via=s3)
    again.until(again.settled, "the record is stored")
    assert again.stop() == 0
    (record,) = bucket.objects("raw_streams/")
    assert record.body.endswith(b"}\n")
    assert record.metadata["bytes"] == str(len(record.body))
    accounting.check(client.accepted, bucket.stored())


@pytest.mark.parametrize("fault", ["cut_then_resets", "says_200"])
def test_what_was_unreadable_leaves_the_disk_only_when_it_is_proven_under_dlq_prefix(
    fault: str, serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    name = "1763017800_web-1-" + "ab" * 14 + "_000001.3.jsonl.gz"
    content = b"no header that anybody knows\n" * 10
    slot = tmp_path / "dlq" / "pending" / "0"
    slot.mkdir(parents=True)
    (slot / name).write_bytes(content)
    lie = s3.fail(fault, key=lambda key: key.startswith("raw_dlq/"), times=1)
    server = serve(via=s3)
    client = Client()
    client.must_send(server, count=10)
    server.until(server.settled, "it is handed over")
    assert lie.hits == 1
    assert [found.body for found in bucket.objects("raw_dlq/")] == [content]
    assert server.metrics()['dlq_events_dropped_total{reason="unreadable"}'] == 3
    check_all_stored(server, client, bucket)


def left_in_a_journal(server: Server, client: Client) -> tuple[str, bytes]:
    """Kill a server that has events in an open batch; return that batch's key and lines."""
    client.must_send(server, count=20)
    server.kill()
    (journal,) = (server.own_dir / "journal").rglob("*.journal")
    header, *lines = journal.read_bytes().splitlines(keepends=True)
    key: str = json.loads(header)["key"]
    return key, b"".join(line for line in lines if line.startswith(b"{"))


#: What may be found of an object: the beginning of it, and what stands behind that.
DAMAGES = [(0, b""), (60, bytes(500)), (None, b"garbage")]


@pytest.mark.parametrize(("length", "tail"), DAMAGES)
def test_a_damaged_file_in_a_directory_is_repaired_by_the_batch_that_finds_it(
    length: int | None, tail: bytes, serve: Serve, tmp_path: Path
) -> None:
    root = tmp_path / "bucket"
    client = Client()
    first = serve(RAW_BUCKET=f"file:{root}", FLUSH_INTERVAL="10m")
    key, lines = left_in_a_journal(first, client)
    (root / key).parent.mkdir(parents=True)
    (root / key).write_bytes(gzip.compress(lines)[:length] + tail)

    second = serve(RAW_BUCKET=f"file:{root}")
    second.until(lambda: second.metrics()["s3_events_stored_total"] == 20, "all is stored")
    assert second.settled()
    accounting.check_equation(second.metrics())
    second.must_stop()
    files = [path for path in (root / "raw").rglob("*") if path.is_file()]
    assert files == [root / key], "no temporary file is left, and none beside it"
    accounting.check(client.accepted, gunzip_lines(files[0].read_bytes()))


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize(("length", "tail"), DAMAGES)
def test_a_damaged_object_is_repaired_by_the_batch_that_recovery_finds(
    length: int | None, tail: bytes, described: bool, serve: Serve, bucket: Bucket
) -> None:
    client = Client()
    key, lines = left_in_a_journal(serve(FLUSH_INTERVAL="10m"), client)
    stream = json.loads(lines.partition(b"\n")[0])["id"].rpartition("-")[0]
    metadata = {"events": "20", "first-id": f"{stream}-1", "last-id": f"{stream}-20"}
    if described:
        metadata["bytes"] = str(len(gzip.compress(lines)))  # else from before there was one
    bucket.put(key, gzip.compress(lines)[:length] + tail, **metadata)
    second = serve()
    second.until(lambda: second.metrics()["s3_events_stored_total"] == 20, "all is stored")
    assert second.settled()
    accounting.check_equation(second.metrics())
    second.must_stop()
    assert bucket.keys("raw/") == [key]
    accounting.check(client.accepted, bucket.stored())
