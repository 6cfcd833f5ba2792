"""DURABILITY=stored: an answer says whether the store has the events already."""

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.conftest import Serve, both_workers
from tests.support import accounting
from tests.support.client import Client
from tests.support.dlq_dir import events_on_disk
from tests.support.faulty_s3 import FaultyS3, Headers
from tests.support.s3 import Bucket
from tests.support.server import Answer, Server

#: One batch at a time goes to a store that may take its time.
ONE_UPLOAD = {
    "DURABILITY": "stored",
    "UPLOAD_CONCURRENCY": "1",
    "UPLOAD_QUEUE": "1",
    "S3_TIMEOUT": "60s",
}


def kept(answer: Answer) -> str:
    """Return where an answer says that its events are kept."""
    assert answer.status == 202, answer
    where: str = answer.json.get("kept", "store")
    return where


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def send_aside(pool: ThreadPoolExecutor, server: Server, client: Client) -> Future[Answer]:
    """Send an event, and return as soon as it is in its journal; its answer may take longer."""
    before = server.metrics()["events_accepted_total"]
    sent = pool.submit(client.send, server)
    server.until(
        lambda: server.metrics()["events_accepted_total"] > before, "the event is journalled"
    )
    return sent


def answers(server: Server) -> tuple[float, float]:
    """Return how many answers were kept in the store, and on disk."""
    found = server.metrics()
    return tuple(found[f'answers_kept_total{{where="{w}"}}'] for w in ("store", "disk"))  # type: ignore[return-value]


def goes_down(server: Server, s3: FaultyS3, client: Client) -> None:
    """Let the store deny everything, which opens the breaker at once."""
    s3.fail("403", method="*")
    assert kept(client.send(server)) == "disk"


@both_workers
@pytest.mark.quick
@pytest.mark.parametrize("request_of_one", ["POST", "GET"])
def test_an_answer_comes_when_the_event_is_in_the_bucket(
    request_of_one: str, serve: Serve, bucket: Bucket
) -> None:
    server = serve(DURABILITY="stored")
    for number in range(1, 4):
        if request_of_one == "POST":
            assert server.post('{"n":"a"}').json == {"accepted": 1}
        else:
            assert server.get("/collect.gif?n=a").status == 200
        assert len(bucket.stored()) == number
    assert answers(server) == (3, 0)
    server.must_stop()


@both_workers
@pytest.mark.quick
def test_in_an_outage_answers_say_that_events_are_on_disk_until_it_ends(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, DURABILITY="stored")
    client = Client()
    client.must_send(server, count=2)
    goes_down(server, s3, client)
    mixed = server.post('[{"n":"mixed"},3]')
    assert mixed.json == {
        "accepted": 1,
        "rejected": 1,
        "errors": [{"index": 1, "reason": "an event must be a JSON object"}],
        "kept": "disk",
    }
    assert server.get("/collect?n=pixel").status == 204
    server.until(server.all_on_disk, "the batches are in the DLQ")
    accounting.check(
        [*client.accepted, "mixed", "pixel"], bucket.stored(), events_on_disk(server.dlq_dir)
    )
    assert answers(server) == (1, 3)
    s3.heal()
    server.until(lambda: kept(client.send(server)) == "store", "answers come from the store")
    server.until(
        lambda: client.send(server) and server.events("answers_kept_in_store"),
        "it is said to be over",
    )
    server.must_store([*client.accepted, "mixed", "pixel"], bucket)
    server.must_stop()
    changes = [e["event"] for e in server.logs() if e["event"].startswith("answers_kept")]
    assert changes == ["answers_kept_on_disk", "answers_kept_in_store"]


def test_during_an_outage_batches_grow_and_requests_do_not_wait_for_them(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, DURABILITY="stored", FLUSH_INTERVAL="10m", STORED_INTERVAL="10ms")
    client = Client()
    goes_down(server, s3, client)
    batches = server.metrics()["batch_events_count"]
    for _ in range(200):
        assert kept(client.send(server)) == "disk"
    assert server.metrics()["batch_events_count"] - batches < 20
    s3.heal()
    server.must_store(client.accepted, bucket)


@both_workers
def test_strict_refuses_while_the_store_is_down_and_takes_events_again_by_itself(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, DURABILITY="stored", STORED_STRICT="true", S3_APP_RETRIES="0")
    client = Client()
    client.must_send(server)
    s3.fail("403", method="PUT")
    assert kept(client.send(server)) == "disk", "it was written before anybody knew"
    refused = client.send(server)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert refused.json["title"] == "Store down"
    assert server.rejected("store_down") == 1
    assert server.get("/collect?n=refused").status == 503
    # what comes when a probe is due is let in: it is the probe
    server.until(lambda: client.send(server).status == 202, "a request is let in")
    server.until(server.all_on_disk, "the batches are in the DLQ")
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
    s3.heal()
    server.until(lambda: client.send(server).json.get("accepted"), "the store is back")
    assert kept(client.send(server)) == "store"
    server.must_store(client.accepted, bucket)
    server.must_stop()


def test_a_store_that_does_not_answer_makes_requests_wait_no_longer_than_the_breaker_needs(
    serve: Serve, s3: FaultyS3, bucket: Bucket, pool: ThreadPoolExecutor
) -> None:
    # an hour's worth of attempts, of which the first three open the breaker
    server = serve(via=s3, DURABILITY="stored", S3_TIMEOUT="1s", S3_APP_RETRIES="20")
    client = Client()
    held = s3.fail("hang", method="*")
    for sent in [pool.submit(client.send, server) for _ in range(8)]:
        assert kept(sent.result()) == "disk"
    assert held.hits < 10
    s3.heal()
    server.must_store(client.accepted, bucket)
    server.must_stop()


def test_behind_a_slow_store_a_batch_grows_instead_of_going_to_the_dlq(
    serve: Serve, s3: FaultyS3, bucket: Bucket, pool: ThreadPoolExecutor
) -> None:
    server = serve(via=s3, STORED_INTERVAL="10ms", **ONE_UPLOAD)
    landed, goes_on = threading.Event(), threading.Event()

    def slowly(_request: dict[str, str], answer: Headers) -> Headers:
        landed.set()
        goes_on.wait(60)
        return answer

    s3.answers(slowly)
    client = Client()
    first = send_aside(pool, server, client)
    assert landed.wait(20)
    others = [send_aside(pool, server, client) for _ in range(12)]
    assert server.metrics()["dlq_events_enqueued_total"] == 0
    goes_on.set()
    assert [kept(sent.result()) for sent in (first, *others)] == ["store"] * 13
    assert len(s3.attempts()) == 2
    server.must_store(client.accepted, bucket)


def test_what_the_upload_queue_has_no_room_for_is_kept_on_disk(
    serve: Serve, s3: FaultyS3, bucket: Bucket, pool: ThreadPoolExecutor
) -> None:
    server = serve(via=s3, BATCH_SIZE="1", **ONE_UPLOAD)
    held = s3.fail("hang", times=1)
    client = Client()
    first = send_aside(pool, server, client)
    server.until(lambda: held.hits, "the first batch is on its way")
    second = send_aside(pool, server, client)
    assert kept(client.send(server)) == "disk"
    assert not first.done()
    assert not second.done()
    s3.heal()
    # the attempt that hung has failed, and the next one works
    assert [kept(sent.result()) for sent in (first, second)] == ["store"] * 2
    server.must_store(client.accepted, bucket)


def test_a_put_that_landed_without_an_answer_is_found_and_counts_as_stored(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, DURABILITY="stored")
    s3.fail("lands_then_resets", times=1)
    assert kept(Client().send(server)) == "store"
    assert [attempt.outcome for attempt in s3.attempts()] == ["lands_then_resets", "412"]
    assert len(bucket.stored()) == 1


def test_requests_that_wait_take_no_connection_from_others(
    serve: Serve, s3: FaultyS3, bucket: Bucket, pool: ThreadPoolExecutor
) -> None:
    server = serve(
        via=s3,
        DURABILITY="stored",
        BATCH_SIZE="1",
        S3_TIMEOUT="60s",
        gunicorn="--worker-connections 4",
    )
    held = s3.fail("hang")
    client = Client()
    sent = [pool.submit(client.send, server) for _ in range(4)]
    server.until(lambda: held.hits == 4, "all connections have a request that waits")
    assert server.get("/health").status == 200
    assert [kept(one.result()) for one in sent] == ["disk"] * 4
    s3.heal()
    server.must_store(client.accepted, bucket)


def test_a_client_that_leaves_while_it_waits_changes_nothing(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, DURABILITY="stored", S3_TIMEOUT="60s")
    held = s3.fail("hang", times=1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET /collect?n=left HTTP/1.1\r\nHost: x\r\n\r\n")
        server.until(lambda: held.hits, "its batch is on its way")
    s3.heal()
    client = Client()
    client.must_send(server)
    server.must_store(["left", *client.accepted], bucket)
    assert answers(server) == (2, 0)
    server.must_stop()


@both_workers
@pytest.mark.quick
def test_a_stop_closes_the_open_batch_and_answers_from_the_store(
    serve: Serve, bucket: Bucket, pool: ThreadPoolExecutor
) -> None:
    server = serve(DURABILITY="stored", STORED_INTERVAL="10s", FLUSH_INTERVAL="10m")
    client = Client()
    sent = [send_aside(pool, server, client) for _ in range(3)]
    server.must_stop()
    assert [kept(one.result()) for one in sent] == ["store"] * 3
    accounting.check(client.accepted, bucket.stored())


@both_workers
@pytest.mark.parametrize("signals", [1, 2])
def test_a_stop_while_the_store_hangs_answers_those_who_wait_from_disk(
    signals: int, serve: Serve, s3: FaultyS3, bucket: Bucket, pool: ThreadPoolExecutor
) -> None:
    timeout = "3s" if signals == 1 else "10m"
    server = serve(via=s3, DURABILITY="stored", S3_TIMEOUT="60s", SHUTDOWN_TIMEOUT=timeout)
    held = s3.fail("hang", method="*")
    client = Client()
    sent = [send_aside(pool, server, client) for _ in range(3)]
    server.until(lambda: held.hits, "a batch is on its way")
    for _ in range(signals):
        server.send_signal(signal.SIGTERM)
        server.until(server.refuses_connections, "the stop is under way")
    assert [kept(one.result()) for one in sent] == ["disk"] * 3
    assert server.wait() == 0
    accounting.check_stopped(server.logs())
    s3.heal()
    serve(via=s3).must_store(client.accepted, bucket)


def test_a_reload_while_the_store_hangs_answers_those_who_wait_from_disk(
    serve: Serve, s3: FaultyS3, bucket: Bucket, pool: ThreadPoolExecutor
) -> None:
    server = serve(via=s3, DURABILITY="stored", S3_TIMEOUT="60s", SHUTDOWN_TIMEOUT="3s")
    held = s3.fail("hang", method="*")
    client = Client()
    sent = send_aside(pool, server, client)
    server.until(lambda: held.hits, "a batch is on its way")
    server.send_signal(signal.SIGHUP)
    assert kept(sent.result()) == "disk"
    s3.heal()
    assert kept(client.send(server)) == "store"
    server.must_store(client.accepted, bucket)
    server.must_stop()


@both_workers
def test_workers_that_are_replaced_answer_everybody_from_the_store(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(DURABILITY="stored", gunicorn="--max-requests 4", STORED_INTERVAL="10ms")
    client = Client()
    for _ in range(10):
        assert kept(client.send(server)) == "store"
        assert len(bucket.stored()) == len(client.accepted)
    server.must_stop()
