"""A batch has one identity: whatever happens to its uploads, its events come out once."""

import signal

import pytest

from tests.conftest import Serve, every_s3
from tests.support import accounting
from tests.support.client import Client
from tests.support.dlq_dir import dlq_files, events_on_disk
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket


def test_a_batch_that_fails_first_and_lands_second_has_all_its_events_both_times(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, S3_APP_RETRIES="2")
    s3.fail("500", times=1)
    client = Client()
    client.must_send(server, count=50)
    server.until(server.settled, "the batch is stored")

    (attempts,) = s3.puts_by_key().values()
    assert [attempt.outcome for attempt in attempts] == ["500", "200"]
    assert len({attempt.sha256 for attempt in attempts}) == 1
    assert sorted(line["body"]["n"] for line in attempts[0].lines) == sorted(client.accepted)
    assert server.metrics()["dlq_events_enqueued_total"] == 0
    accounting.check(client.accepted, bucket.stored())


@every_s3
@pytest.mark.quick
@pytest.mark.parametrize("fault", ["lands_then_hangs", "lands_then_resets"])
def test_a_put_that_landed_without_an_answer_comes_out_once(
    fault: str, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, S3_APP_RETRIES="2", BATCH_SIZE="10")
    landed = s3.fail(fault, times=3)
    client = Client()
    client.must_send(server, count=10, requests=6)
    server.until(server.settled, "everything is stored")

    assert landed.hits == 3
    assert len(bucket.keys("raw/")) == 6
    repeated = [attempts for attempts in s3.puts_by_key().values() if len(attempts) > 1]
    assert len(repeated) == 3
    for attempts in repeated:
        assert [attempt.outcome for attempt in attempts] == [fault, "412"]
        assert len({attempt.sha256 for attempt in attempts}) == 1
    accounting.check(client.accepted, bucket.stored())
    accounting.check_equation(server.metrics())
    assert server.metrics()["s3_events_stored_total"] == 60


def test_a_put_that_landed_is_not_sent_again_by_the_replay(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, S3_APP_RETRIES="0", BATCH_SIZE="10")
    landed = s3.fail("lands_then_resets", times=2)
    client = Client()
    client.must_send(server, count=10, requests=5)
    server.until(server.settled, "the DLQ is empty")

    assert landed.hits == 2
    assert all(len(attempts) == 1 for attempts in s3.puts_by_key().values()), "a replay looks first"
    accounting.check(client.accepted, bucket.stored())
    after = server.metrics()
    assert after["dlq_events_reuploaded_total"] == 20
    accounting.check_equation(after)


@every_s3
@pytest.mark.quick
def test_a_put_that_landed_before_the_stop_comes_out_once_after_the_next_start(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    first = serve(via=s3, S3_APP_RETRIES="0", BATCH_SIZE="10")
    s3.fail("500", method="HEAD")
    s3.fail("lands_then_resets")
    client = Client()
    client.must_send(first, count=10, requests=4)
    first.until(first.all_on_disk, "the batches are in the DLQ")
    assert first.stop() == 0
    # not always all: the breaker may have opened before the last one was tried
    eventually(bucket.stored, 20, "some of them have landed")
    assert len(events_on_disk(first.dlq_dir)) == 40, "and nobody knew"

    s3.heal()
    second = serve(via=s3)
    second.until(second.settled, "the next start has gone through the DLQ")
    accounting.check(client.accepted, bucket.stored())
    assert len(bucket.keys("raw/")) == 4
    after = second.metrics()
    assert after["events_adopted_total"] == after["s3_events_stored_total"] == 40
    accounting.check_equation(after)


def test_a_store_without_conditional_put_still_gets_each_replayed_batch_once(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, S3_APP_RETRIES="0", BATCH_SIZE="10", S3_CONDITIONAL_PUT="false")
    landed = s3.fail("lands_then_hangs", times=2)
    client = Client()
    client.must_send(server, count=10, requests=4)
    server.until(server.settled, "the DLQ is empty")
    assert landed.hits == 2
    assert not any(attempt.conditional for attempt in s3.attempts())
    accounting.check(client.accepted, bucket.stored())


def test_a_store_that_answers_501_to_the_condition_is_used_without_it_and_told_once(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10")
    s3.fail("501", times=1)
    client = Client()
    client.must_send(server, count=10, requests=4)
    server.until(server.settled, "everything is stored")
    conditional = [attempt for attempt in s3.attempts() if attempt.conditional]
    assert conditional[0].outcome == "501"
    assert len(server.events("store_without_conditional_put")) == 1
    client.must_send(server, count=10)
    server.until(server.settled, "everything is stored")
    assert not s3.attempts()[-1].conditional
    accounting.check(client.accepted, bucket.stored())


@pytest.mark.parametrize(
    ("retries", "answer", "tried"), [("3", "500", 4), ("3", "403", 1), ("0", "500", 1)]
)
def test_retries_are_as_many_as_the_setting_says_and_none_after_a_refusal_for_good(
    retries: str, answer: str, tried: int, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    # a replay begins with a HEAD, and stops there: every PUT is the uploader's
    s3.fail("500", method="HEAD")
    s3.fail(answer, method="PUT")
    server = serve(via=s3, S3_APP_RETRIES=retries, BATCH_SIZE="10")
    client = Client()
    client.must_send(server, count=10)
    server.until(server.all_on_disk, "the batch is in the DLQ")
    (attempts,) = s3.puts_by_key().values()
    assert len(attempts) == tried
    assert len({attempt.sha256 for attempt in attempts}) == 1
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


@pytest.mark.quick
def test_a_dlq_file_says_what_it_is_and_is_replayed_under_its_own_key(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    first = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    client.must_spill(first, s3, count=10, requests=4)
    assert first.stop() == 0

    files = [file for file in dlq_files(first.dlq_dir) if file.lines]
    assert len(files) == 4
    expected = {}
    for file in files:
        about = file.about
        assert about["bucket"] == bucket.name
        assert about["events"] == len(file.lines) == 10
        assert about["last"] - about["first"] + 1 == 10
        assert about["reason"] == "breaker_open" or "SlowDown" in about["error"]
        assert f".{about['events']}.jsonl.gz" in file.path.name
        expected[about["key"]] = [line["id"] for line in file.lines]
    tried = set(s3.puts_by_key())
    assert tried
    assert tried <= set(expected), "the key that every attempt had"

    s3.heal()
    # what the settings say now is for new events; these know where they belong
    second = serve(via=s3, RAW_PREFIX="elsewhere", RAW_BUCKET="another-bucket")
    second.until(second.settled, "the next start has gone through the DLQ")
    assert {
        found.key: [line["id"] for line in found.lines] for found in bucket.objects()
    } == expected
    accounting.check(client.accepted, bucket.stored())
    accounting.check_equation(second.metrics())
    assert second.stop(signal.SIGTERM) == 0


def test_batches_that_the_upload_queue_has_no_room_for_go_to_the_dlq_and_come_out_once(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(
        via=s3, BATCH_SIZE="10", UPLOAD_QUEUE="1", UPLOAD_CONCURRENCY="1", S3_TIMEOUT="10s"
    )
    s3.fail("hang")
    client = Client()
    client.must_send(server, count=10, requests=10)
    # one hangs, one waits
    eventually(lambda: server.metrics()["dlq_events_enqueued_total"] == 80, 9, "8 are on disk")
    assert {file.about["reason"] for file in dlq_files(server.dlq_dir)} == {"upload_queue_full"}
    s3.heal()
    server.must_store(client.accepted, bucket)
