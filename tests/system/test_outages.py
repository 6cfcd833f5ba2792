"""S3 fails in every way it knows; nothing is lost and it heals by itself."""

import pytest

from tests.conftest import Serve, every_s3
from tests.support import accounting
from tests.support.client import Client
from tests.support.dlq_dir import dlq_files, events_on_disk
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket


@pytest.mark.parametrize(
    "fault", [pytest.param("500", marks=pytest.mark.quick), "403", "404", "400", "hang", "reset"]
)
def test_an_outage_costs_disk_and_nothing_else(
    fault: str, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    client.must_send(server, count=10, requests=2)
    eventually(lambda: server.metrics()["s3_events_stored_total"] == 20, 10, "S3 works at first")

    s3.fail(fault)
    client.must_send(server, count=10, requests=10)
    server.until(server.all_on_disk, "the batches are in the DLQ")
    during = server.metrics()
    # some attempts fail, then the breaker is open
    assert 1 <= during["s3_put_errors_total"] < 30
    assert during["breaker_open"] == 1
    assert during["dlq_events_enqueued_total"] == during["dlq_events_current"] == 100
    assert during["dlq_events_reuploaded_total"] == 0
    assert server.problems() == ["s3_down"]
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    accounting.check_equation(during)

    s3.heal()
    server.until(server.settled, "the DLQ empties by itself")
    after = server.metrics()
    assert after["dlq_events_reuploaded_total"] == 100
    assert after["s3_events_stored_total"] == 120
    assert after["dlq_files_current"] == after["dlq_size_bytes"] == 0
    assert server.problems() == []
    accounting.check(client.accepted, bucket.stored())
    accounting.check_equation(after)
    assert server.stop() == 0
    assert len(server.events("store_down")) == len(server.events("store_recovered")) == 1
    accounting.check_stopped(server.logs())


@every_s3
def test_fresh_events_are_stored_beside_the_replay_and_both_end(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, workers=2, BATCH_SIZE="10")
    client = Client()
    client.must_spill(server, s3, count=10, requests=40)

    s3.heal()

    def send_and_look() -> bool:
        client.must_send(server, count=10)
        return server.metrics()["dlq_files_current"] == 0

    server.until(send_and_look, "the DLQ empties under load")
    server.must_store(client.accepted, bucket)
    assert server.stop() == 0
    down = server.events("store_down")
    assert 1 <= len(down) <= 2, "one line for each worker that met the outage"
    assert len(server.events("store_recovered")) == len(down)


def test_one_refused_object_is_no_outage(serve: Serve, s3: FaultyS3, bucket: Bucket) -> None:
    server = serve(via=s3, BATCH_SIZE="10")
    client = Client()
    refused = s3.fail("400", times=1)
    client.must_send(server, count=10)
    eventually(lambda: refused.hits == 1, 10, "a batch is refused")
    server.until(server.settled, "it goes through later")
    assert server.stop() == 0
    assert server.events("store_down") == []
    accounting.check(client.accepted, bucket.stored())


@pytest.mark.parametrize(
    ("fault", "method"),
    [("400", "PUT"), pytest.param("400", "*", marks=pytest.mark.quick), ("400_page", "*")],
)
def test_a_store_that_refuses_everything_is_tried_again_soon_with_the_one_batch_that_waits(
    fault: str, method: str, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10", S3_APP_RETRIES="2")
    client = Client()
    s3.fail(fault, method=method)
    client.must_send(server, count=10)
    # of a PUT alone nobody can tell whose fault it is, so it has one attempt; with a HEAD they can
    down = method == "*"
    attempts = 3 if down else 1
    server.until(
        lambda: server.metrics()["s3_put_errors_total"] >= attempts + 2 and server.all_on_disk(),
        "the batch is refused in two replays, too",
    )
    during = server.metrics()
    assert server.problems() == ["s3_down"] * down
    accounting.check(client.accepted, [], events_on_disk(server.dlq_dir))
    accounting.check_equation(during)
    s3.heal()
    server.until(server.settled, "it is stored, and not put off")
    accounting.check_equation(server.metrics())
    assert server.stop() == 0
    assert len(server.events("store_down")) == len(server.events("store_recovered")) == down
    accounting.check_stopped(server.logs())
    accounting.check(client.accepted, bucket.stored())


@pytest.mark.quick
def test_the_server_starts_and_accepts_while_s3_is_away(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    s3.fail("reset", method="*")
    server = serve(via=s3)
    client = Client()
    client.must_send(server, count=10, requests=3)
    server.until(server.all_on_disk, "the batches are in the DLQ")
    s3.heal()
    server.until(server.settled, "the DLQ empties by itself")
    accounting.check(client.accepted, bucket.stored())


def test_an_open_breaker_sends_fresh_batches_to_disk_without_an_attempt(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    # replays stop at their HEAD, so that every PUT is an uploader's
    s3.fail("500", method="HEAD")
    s3.fail("hang", method="PUT")
    server = serve(via=s3, BATCH_SIZE="10", UPLOAD_CONCURRENCY="1", UPLOAD_QUEUE="100")
    client = Client()
    client.must_send(server, count=10, requests=2)
    eventually(lambda: server.metrics()["breaker_open"] == 1, 20, "the breaker opens")

    before = len(s3.puts_by_key())
    client.must_send(server, count=10, requests=60)
    server.until(server.all_on_disk, "everything is on disk")
    assert len(s3.puts_by_key()) - before <= 10, "but for a few probes"
    reasons = [file.about["reason"] for file in dlq_files(server.dlq_dir)]
    assert reasons.count("breaker_open") >= 50
    assert server.problems() == ["s3_down"]

    s3.heal()
    server.until(server.settled, "the DLQ empties")
    client.must_send(server, count=10)
    server.until(server.settled, "fresh events are stored too")
    assert server.metrics()["breaker_open"] == 0
    accounting.check(client.accepted, bucket.stored())
    accounting.check_equation(server.metrics())
