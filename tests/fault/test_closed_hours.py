"""An hour is complete once every server that took events in it has said so, whatever befell them.

The servers' clock is libfaketime's: an hour passes when a test says so. It is two hours behind at
first, so that the hour is over for the audit, which has the right time.
"""

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve, need
from tests.support import accounting, command, faketime
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.faketime import Clock
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket
from tests.support.server import BIN, Server

COMPLETE, GAP, OPEN = 0, 1, 3


class Hour:
    """The hour in which the servers of a test begin, in its middle: it does not end by itself."""

    def __init__(self, path: Path) -> None:
        self._clock = Clock(path)
        then = datetime.now(UTC) - timedelta(hours=2)
        self._half_past = 30 - then.minute - 120
        self.name = f"{then:%Y-%m-%dT%H}"
        # a process whose clock is another is slow
        self.environ = self._clock.environ | {"S3_TIMEOUT": "5s"}
        self.passes(0)

    def passes(self, hours: int) -> None:
        """Let it be so many hours later for the servers."""
        self._clock.set(minutes=self._half_past + 60 * hours)

    def argv(self, *arguments: str) -> list[str]:
        return [str(BIN / "estat"), "audit", "--hour", self.name, *arguments]

    def audit(self, server: Server, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Return what a reader of the bucket is told: the exit code, and the servers by name."""
        done = command.run(self.argv("--json", *arguments), env=self.at(server))
        assert not done.stderr, done.stderr
        report = json.loads(done.stdout)
        return done.returncode, {s["marker"]["server"]: s for s in report["servers"]}

    def at(self, server: Server) -> dict[str, str]:
        """Return the environment of a reader of a server's bucket."""
        return {k: v for k, v in server.environ.items() if k not in (*self.environ, "DLQ_DIR")}

    def until(self, server: Server, code: int) -> dict[str, Any]:
        """Wait until the audit ends with a code; return the servers."""

        def found() -> dict[str, Any]:
            ended, servers = self.audit(server)
            assert ended == code, servers
            return servers

        return eventually(found, 40, f"the audit says {code}", last_words=server.log_text)


@pytest.fixture
def hour(tmp_path: Path) -> Hour:
    need(faketime.library(), "libfaketime")
    return Hour(tmp_path / "clock")


def revisions(servers: dict[str, Any]) -> dict[str, int]:
    return {name: server["marker"]["revision"] for name, server in servers.items()}


def stored_notes(server: Server) -> int:
    files = server.own_dir.glob("hours/*/*")
    return sum(path.read_text("utf-8").count('"stored"') for path in files)


def test_a_killed_servers_hour_is_open_until_another_one_has_stored_what_it_left(
    hour: Hour, serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    settings = {"FLUSH_INTERVAL": "10m", "BATCH_SIZE": "10", **hour.environ}
    lives = serve(DLQ_DIR=str(tmp_path / "one"), workers=2, **settings)
    dies = serve(DLQ_DIR=str(tmp_path / "two"), **settings)
    clients = Client("a"), Client("b")
    clients[0].must_send(lives, count=10, requests=3)
    clients[1].must_send(dies, count=10, requests=2)
    clients[1].must_send(dies, count=3)  # in an open batch
    gone, stays = dies.own_dir.name, lives.own_dir.name
    eventually(lambda: len(bucket.keys("raw_closed/")) == 2, 20, "both have said so")
    eventually(lambda: stored_notes(dies) == 2, 20, "a kill takes along what is not noted")
    dies.kill()
    hour.passes(1)
    lives.until(lambda: lives.events("hour_closed"), "the one that lives closes it")
    code, servers = hour.audit(lives)
    assert code == OPEN
    assert {name: s["state"] for name, s in servers.items()} == {gone: "open", stays: "complete"}
    assert len(bucket.keys("raw_closed/")) == 2, "who takes no events in an hour says nothing of it"

    with subprocess.Popen(
        hour.argv("--wait"), env=hour.at(lives), stdout=subprocess.DEVNULL
    ) as job:
        heir = serve(DLQ_DIR=str(tmp_path / "two"), **settings)
        assert job.wait(180) == COMPLETE, heir.log_text()
    servers = hour.until(lives, COMPLETE)
    assert revisions(servers) == {gone: 1, stays: 1}
    assert servers[gone]["marker"]["by"] == heir.own_dir.name
    streams = [spans for s in servers.values() for spans in s["marker"]["streams"].values()]
    assert sum(last - first + 1 for spans in streams for first, last in spans) == 53
    accounting.check(clients[0].accepted + clients[1].accepted, bucket.stored())
    heir.must_stop()
    lives.must_stop()


def test_an_hour_that_grows_again_has_a_higher_revision(
    hour: Hour, serve: Serve, bucket: Bucket
) -> None:
    server = serve(BATCH_SIZE="10", **hour.environ)
    client = Client()
    client.must_send(server, count=10, requests=3)
    hour.passes(1)
    assert set(revisions(hour.until(server, COMPLETE)).values()) == {1}
    hour.passes(0)  # the clock was wrong
    client.must_send(server, count=10, requests=3)
    assert hour.until(server, OPEN)
    hour.passes(1)
    assert set(revisions(hour.until(server, COMPLETE)).values()) == {2}
    server.must_store(client.accepted, bucket)


def test_a_server_that_is_gone_with_its_disk_can_be_given_up_on_record(
    hour: Hour, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, BATCH_SIZE="10", **hour.environ)
    client = Client()
    client.must_send(server, count=10, requests=2)
    eventually(lambda: bucket.keys("raw_closed/"), 20, "it has said so")
    server.until(server.settled, "they are stored")
    client.must_spill(server, s3, count=10)
    name = server.own_dir.name
    server.kill()
    shutil.rmtree(server.dlq_dir)
    s3.heal()
    hour.passes(2)
    code, servers = hour.audit(server)
    (stream,) = servers[name]["marker"]["streams"]
    assert (code, servers[name]["stored"]) == (OPEN, {stream: [[1, 20]]})
    assert command.run(hour.argv("--give-up", "0" * 28), env=hour.at(server)).returncode == 2
    assert hour.audit(server, "--give-up", name)[0] == COMPLETE
    told = command.run(hour.argv(), env=hour.at(server))
    assert told.returncode == COMPLETE
    assert "given up at" in told.stdout
    assert f"of stream {stream} nothing is known after id 20" in told.stdout
    assert len(bucket.keys("raw_closed/")) == 2


def test_what_a_stop_handed_over_to_another_bucket_is_missing_in_this_one(
    hour: Hour, serve: Serve, s3: FaultyS3, tmp_path: Path
) -> None:
    fallback = f"file:{tmp_path / 'fallback'}"
    first = serve(via=s3, BATCH_SIZE="10", FALLBACK_BUCKET=fallback, **hour.environ)
    client = Client()
    client.must_send(first, count=10)
    first.until(first.settled, "they are stored")
    client.must_spill(first, s3, count=10)
    assert first.must_stop()["handed_over"] == 10
    s3.heal()
    second = serve(via=s3, **hour.environ)
    hour.passes(1)
    (server,) = hour.until(second, GAP).values()
    ((stream, missing),) = server["missing"].items()
    assert missing == [[11, 20]]
    assert server["marker"]["elsewhere"] == {"handed_over": {stream: missing}}


def test_a_store_that_refuses_markers_costs_a_warning_and_nothing_else(
    hour: Hour, serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    s3.fail("403", key=lambda key: "_closed/" in key)
    server = serve(via=s3, BATCH_SIZE="10", **hour.environ)
    client = Client()
    client.must_send(server, count=10, requests=3)
    server.until(lambda: server.events("hour_not_closed"), "it is told")
    hour.passes(1)
    client.must_send(server, count=10, requests=3)
    server.must_store(client.accepted, bucket)
    assert not server.events("store_down")
    assert len(server.events("hour_not_closed")) == 1
    server.must_stop()
