"""Credentials that can't be had, whatever the reason, are an outage of the store and no more."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support import accounting, credentials
from tests.support.client import Client
from tests.support.credentials import Container, Helper, Source
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.s3 import Bucket, Moto
from tests.support.server import Server
from tests.support.sts import Sts

#: Credentials that a living worker is to lose: used for 4 s, as they are given up 5 s before.
SHORT_SECONDS = 9

SOURCES = ("token of a role", "helper", "config file")


@pytest.fixture
def sts() -> Iterator[Sts]:
    with Sts() as running:
        running.lifetime_seconds = 300
        yield running


@pytest.fixture
def container() -> Iterator[Container]:
    with Container() as running:
        yield running


@pytest.fixture
def source(
    request: pytest.FixtureRequest, tmp_path: Path, container: Container, sts: Sts
) -> Source:
    """Return where the credentials come from; nothing is there yet."""
    kind = getattr(request, "param", "token")
    if kind == "token of a role":
        return credentials.token_file_of_a_role(tmp_path, container, sts)
    if kind == "web identity":
        return credentials.web_identity(tmp_path, sts)
    if kind == "helper":
        return credentials.helper(tmp_path)
    if kind == "config file":
        return credentials.config_file(tmp_path)
    return credentials.token_file(tmp_path, container)


def make_short_lived(source: Source, container: Container) -> None:
    container.lifetime_seconds = SHORT_SECONDS
    if isinstance(source, Helper):
        source.lifetime_seconds = SHORT_SECONDS


def lacks_them(server: Server) -> bool:
    return server.problems() == ["credentials"]


def lacked_by(server: Server) -> int:
    """Return how many workers have said that they have no credentials."""
    return sum(line["level"] == "error" for line in server.events("credentials_not_fetched"))


def check_all_on_disk(server: Server, client: Client, bucket: Bucket) -> None:
    server.until(server.all_on_disk, "the batches are in the DLQ")
    accounting.check_equation(server.metrics())
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


def check_recovers(server: Server, client: Client, bucket: Bucket) -> None:
    server.must_store(client.accepted, bucket)


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_a_server_starts_and_accepts_without_them_and_stores_once_they_come(
    source: Source, serve: Serve, bucket: Bucket
) -> None:
    if isinstance(source, credentials.UnreadableConfig):
        source.broken()
    server = serve(workers=2, BATCH_SIZE="10", **source.environ)
    client = Client()
    client.must_send(server, count=10, requests=10)
    check_all_on_disk(server, client, bucket)
    eventually(lambda: lacked_by(server) == 2, 20, "both workers say so")
    if isinstance(source, credentials.UnreadableConfig):
        # the same file says how S3 is reached
        assert set(server.problems()) <= {"s3_down", "credentials"}
    else:
        assert lacks_them(server)
        assert server.events("store_down") == []

    source.mended()
    check_recovers(server, client, bucket)
    server.until(lambda: len(server.events("credentials_fetched")) == 2, "both workers have them")
    assert "credentials" not in server.problems()
    server.must_stop()
    assert server.events("stage_died") == []
    assert "unexpectedly" not in server.log_text()


@pytest.mark.parametrize("source", ["helper"], indirect=True)
def test_neither_a_reload_nor_a_killed_worker_ends_a_server_that_lost_them(
    source: Source, serve: Serve, bucket: Bucket
) -> None:
    source.mended()
    server = serve(workers=2, BATCH_SIZE="10", **source.environ)
    client = Client()
    client.must_send(server, count=10, requests=2)
    server.until(server.settled, "it works at first")

    # what is stored and still in its journal would be recovered, and look like a repeat
    eventually(lambda: not [*server.dlq_dir.rglob("*.journal")], 20, "the journals are gone")

    source.broken()
    server.kill_worker()
    client.must_send(server, count=10, requests=2)
    reload(server)
    client.must_send(server, count=10, requests=2)
    assert server.running
    check_all_on_disk(server, client, bucket)

    source.mended()
    check_recovers(server, client, bucket)
    server.must_stop()


@pytest.mark.quick
def test_a_worker_that_lives_loses_them_and_gets_them_again(
    source: Source, container: Container, serve: Serve, bucket: Bucket
) -> None:
    make_short_lived(source, container)
    source.mended()
    server = serve(BATCH_SIZE="10", **source.environ)
    client = Client()
    client.must_send(server, count=10, requests=2)
    server.until(server.settled, "it works at first")
    (worker,) = server.worker_pids()

    source.broken()
    eventually(lambda: lacks_them(server), 20, "they have ended")
    client.must_send(server, count=10, requests=10)
    check_all_on_disk(server, client, bucket)
    assert lacks_them(server)

    source.mended()
    check_recovers(server, client, bucket)
    assert server.worker_pids() == [worker]


@pytest.mark.parametrize(
    ("source", "opened"), [("token", True), ("helper", False)], indirect=["source"]
)
def test_a_stop_without_them_leaves_everything_on_disk_and_the_next_start_stores_it(
    opened: bool, source: Source, container: Container, serve: Serve, bucket: Bucket
) -> None:
    if opened:
        make_short_lived(source, container)
        source.mended()
    settings = {"FLUSH_INTERVAL": "1h", "FALLBACK_BUCKET": "another-bucket", **source.environ}
    server = serve(workers=2, **settings)
    client = Client()
    client.must_send(server, count=10, requests=3)
    if opened:
        source.broken()
        eventually(lambda: lacked_by(server) == 2, 40, "both workers' have ended")
    stopped = server.must_stop()
    assert (stopped["accepted"], stopped["in_dlq"], stopped["handed_over"]) == (30, 30, 0)
    assert len(server.events("worker_drained")) == 2
    # by whoever leads, and when that one has ended perhaps by the other
    assert len(server.events("hand_over_ended")) in (1, 2)
    accounting.check(client.accepted, [], events_on_disk(server.dlq_dir))

    source.mended()
    later = serve(**source.environ)
    check_recovers(later, client, bucket)
    assert later.stop() == 0
    assert os.listdir(server.dlq_dir / "servers") == []


def test_a_helper_that_hangs_stops_no_start_no_reload_and_no_stop(
    tmp_path: Path, serve: Serve, bucket: Bucket
) -> None:
    helper = credentials.helper(tmp_path)
    helper.hangs()
    server = serve(workers=2, BATCH_SIZE="10", **helper.environ)
    client = Client()
    client.must_send(server, count=10, requests=5)
    eventually(helper.pids, 20, "it hangs")
    reload(server)
    client.must_send(server, count=10, requests=5)
    check_all_on_disk(server, client, bucket)
    assert lacks_them(server)
    server.must_stop()
    eventually(lambda: not helper.left(), 5, "its processes are gone, and reaped")

    later = serve(workers=2, BATCH_SIZE="10", **helper.environ)
    client.must_send(later, count=10, requests=5)
    helper.mended()
    reload(later)
    check_recovers(later, client, bucket)
    later.until(lambda: later.problems() == [], "both workers have them")


@pytest.mark.parametrize("source", ["web identity"], indirect=True)
def test_an_sts_that_is_slower_than_an_attempt_may_be_is_waited_for(
    source: Source, sts: Sts, serve: Serve, bucket: Bucket
) -> None:
    source.mended()
    sts.delay_seconds = 4
    server = serve(workers=2, BATCH_SIZE="10", S3_TIMEOUT="3s", **source.environ)
    client = Client()
    client.must_send(server, count=10, requests=10)
    check_recovers(server, client, bucket)
    eventually(lambda: len(server.events("credentials_fetched")) == 2, 20, "both have them")
    assert server.problems() == []
    assert server.events("credentials_not_fetched") == []


def test_what_the_role_is_not_given_for_is_handed_over_with_the_servers_own(
    tmp_path: Path, container: Container, sts: Sts, serve: Serve, bucket: Bucket, moto: Moto
) -> None:
    source = credentials.token_file_of_a_role(tmp_path, container, sts)
    source.mended()
    container.delay_seconds = 2  # longer than one attempt at a hand-over would wait
    sts.fault = "hang"
    fallback = moto.new_bucket()
    server = serve(workers=2, FALLBACK_BUCKET=fallback.name, **source.environ)
    client = Client()
    client.must_send(server, count=10, requests=3)
    eventually(lambda: len(server.events("credentials_fetched")) == 2, 60, "the server's own come")
    stopped = server.must_stop()
    assert (stopped["handed_over"], stopped["in_dlq"]) == (30, 0)
    accounting.check(client.accepted, bucket.stored(), fallback.stored())


def reload(server: Server) -> None:
    """Replace all workers, and wait until the old ones have drained."""
    started, drained = len(server.events("worker_started")), len(server.events("worker_drained"))
    server.send_signal(signal.SIGHUP)
    server.until(
        lambda: (
            len(server.events("worker_started")) == started + server.workers
            and len(server.events("worker_drained")) == drained + server.workers
        ),
        "all workers are new",
    )
