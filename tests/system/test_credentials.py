"""Credentials that can't be had, whatever the reason, are an outage of the store and no more."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support import accounting, credentials
from tests.support.client import Client
from tests.support.credentials import Container, Source
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.s3 import Bucket
from tests.support.server import Server
from tests.support.sts import Sts

# a probe of the breaker comes up to 30 s later
RECOVERY_SECONDS = 40

SOURCES = ("token", "token of a role", "web identity", "helper", "config file")


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


def check_all_on_disk(server: Server, client: Client, bucket: Bucket) -> None:
    eventually(server.all_on_disk, 20, "the batches are in the DLQ", last_words=server.log_text)
    accounting.check_equation(server.metrics())
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


def check_recovers(server: Server, client: Client, bucket: Bucket) -> None:
    eventually(server.settled, RECOVERY_SECONDS, "the DLQ empties", last_words=server.log_text)
    accounting.check_equation(server.metrics())
    accounting.check(client.accepted, bucket.stored())


@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_a_server_starts_and_accepts_without_them_and_stores_once_they_come(
    source: Source, serve: Serve, bucket: Bucket
) -> None:
    if isinstance(source, credentials.UnreadableConfig):
        source.broken()
    server = serve(workers=2, BATCH_SIZE="10", **source.environ)
    client = Client()
    client.must_send(server, count=10, requests=10)
    eventually(lambda: server.problems() == ["s3_down"], 20, "the breaker opens")
    check_all_on_disk(server, client, bucket)

    source.mended()
    check_recovers(server, client, bucket)
    assert server.stop() == 0
    accounting.check_stopped(server.logs())
    assert server.events("stage_died") == []
    assert "unexpectedly" not in server.log_text()


@pytest.mark.parametrize("source", ["token", "helper"], indirect=True)
def test_neither_a_reload_nor_a_killed_worker_ends_a_server_that_lost_them(
    source: Source, serve: Serve, bucket: Bucket
) -> None:
    source.mended()
    server = serve(workers=2, BATCH_SIZE="10", **source.environ)
    client = Client()
    client.must_send(server, count=10, requests=2)
    eventually(server.settled, 20, "it works at first", last_words=server.log_text)

    # what is stored and still in its journal would be recovered, and look like a repeat
    eventually(lambda: not [*server.dlq_dir.rglob("*.journal")], 20, "the journals are gone")

    source.broken()
    server.kill_worker()
    client.must_send(server, count=10, requests=2)
    started, drained = len(server.events("worker_started")), len(server.events("worker_drained"))
    server.send_signal(signal.SIGHUP)
    eventually(
        lambda: (
            len(server.events("worker_started")) == started + 2
            and len(server.events("worker_drained")) == drained + 2
        ),
        40,
        "all workers are new",
        last_words=server.log_text,
    )
    client.must_send(server, count=10, requests=2)
    assert server.running
    check_all_on_disk(server, client, bucket)

    source.mended()
    check_recovers(server, client, bucket)
    assert server.stop() == 0
    accounting.check_stopped(server.logs())


@pytest.mark.quick
def test_a_worker_that_lives_loses_them_and_gets_them_again(
    source: Source, serve: Serve, bucket: Bucket
) -> None:
    source.mended()
    server = serve(BATCH_SIZE="10", **source.environ)
    client = Client()
    client.must_send(server, count=10, requests=2)
    eventually(server.settled, 20, "it works at first", last_words=server.log_text)
    (worker,) = server.worker_pids()

    source.broken()
    client.must_send(server, count=10, requests=10)
    eventually(lambda: server.problems() == ["s3_down"], 20, "the breaker opens")
    check_all_on_disk(server, client, bucket)

    source.mended()
    check_recovers(server, client, bucket)
    assert server.worker_pids() == [worker]


@pytest.mark.parametrize("source", ["token", "helper"], indirect=True)
@pytest.mark.parametrize("opened", [True, False])
def test_a_stop_without_them_leaves_everything_on_disk_and_the_next_start_stores_it(
    opened: bool, source: Source, serve: Serve, bucket: Bucket
) -> None:
    if opened:
        source.mended()
    settings = {"FLUSH_INTERVAL": "1h", "FALLBACK_BUCKET": "another-bucket", **source.environ}
    server = serve(workers=2, **settings)
    client = Client()
    client.must_send(server, count=10, requests=3)
    if opened:
        source.broken()
    assert server.stop() == 0
    stopped = accounting.check_stopped(server.logs())
    assert (stopped["accepted"], stopped["in_dlq"], stopped["handed_over"]) == (30, 30, 0)
    assert len(server.events("worker_drained")) == 2
    assert len(server.events("hand_over_ended")) == 1
    accounting.check(client.accepted, [], events_on_disk(server.dlq_dir))

    source.mended()
    later = serve(**source.environ)
    check_recovers(later, client, bucket)
    assert later.stop() == 0
    assert os.listdir(server.dlq_dir / "journal") == []
