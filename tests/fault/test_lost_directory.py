"""DLQ_DIR is not any more what it was: its lock is deleted, it is moved away, or mounted over.

The server says so and accepts nothing. If all is as it was within the lease, it goes on; else it
makes a new directory for itself where DLQ_DIR is by then. What was accepted before is stored once.
"""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve, both_workers
from tests.support import accounting
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.lease import hasty, lose_locks
from tests.support.namespaces import Isolated
from tests.support.s3 import Bucket
from tests.support.server import Server


class Loss:
    """One way to lose DLQ_DIR, and to get it back."""

    kind: type[Server] = Server

    def __init__(self, server: Server) -> None:
        self.server = server
        self.dlq_dir = server.dlq_dir
        self.away = self.dlq_dir.with_name("away")
        (self.own,) = self.directories()

    def directories(self) -> list[Path]:
        return sorted((self.dlq_dir / "servers").iterdir())

    def begin(self) -> None:
        self.dlq_dir.rename(self.away)

    def undo(self) -> None:
        """Let everything be as it was, before the server has made another directory."""
        self.away.rename(self.dlq_dir)

    def bring_back(self) -> None:
        """Put what was lost where the server finds it, beside what it has made meanwhile."""
        self._back_from(self.away)

    def _back_from(self, away: Path) -> None:
        for path in (away / "servers").iterdir():
            path.rename(self.dlq_dir / "servers" / path.name)


class Replaced(Loss):
    """DLQ_DIR is renamed, and another one is in its place."""

    def begin(self) -> None:
        super().begin()
        self.dlq_dir.mkdir(mode=0o700)

    def undo(self) -> None:
        self.dlq_dir.rmdir()
        super().undo()


class LockDeleted(Loss):
    """The lock is no more in the server's directory; that stays where it is."""

    def begin(self) -> None:
        (self.own / "lock").rename(self.away)

    def undo(self) -> None:
        self.away.rename(self.own / "lock")

    def bring_back(self) -> None:
        """Leave it to the server: it finds a directory without a lock."""


class DirectoryMoved(Loss):
    """The server's own directory is renamed."""

    def begin(self) -> None:
        self.own.rename(self.away)

    def undo(self) -> None:
        self.away.rename(self.own)

    def bring_back(self) -> None:
        self.undo()


class MountedOver(Loss):
    """Another file system is mounted at DLQ_DIR, where the server sees it, and nobody else."""

    kind = Isolated

    def begin(self) -> None:
        assert isinstance(self.server, Isolated)
        self.server.run_inside("mount", "-t", "tmpfs", "tmpfs", self.dlq_dir)

    def undo(self) -> None:
        assert isinstance(self.server, Isolated)
        self.server.run_inside("umount", self.dlq_dir)

    def bring_back(self) -> None:
        """Take the other file system away, and with it what the server has made there."""
        assert isinstance(self.server, Isolated)
        self.server.run_inside("umount", "--lazy", self.dlq_dir)


LOSSES = [pytest.param(Replaced, marks=pytest.mark.quick), LockDeleted, DirectoryMoved, MountedOver]


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> type[Loss]:
    found: type[Loss] = request.param
    if found.kind is Isolated:
        request.getfixturevalue("namespaces")
    return found


def named(client: Client, server: Server) -> bool:
    """Tell whether events are refused because of the disk, and /ready says so."""
    answer = client.send(server)
    if answer.status == 202:
        return False
    assert answer.status == 503, answer
    return "disk_error" in server.problems()


def is_refused(client: Client, server: Server) -> None:
    server.until(lambda: named(client, server), "events are refused")
    server.until(lambda: server.events("directory_gone"), "it says so")


def accepts(client: Client, server: Server) -> None:
    server.until(lambda: client.send(server).status == 202, "events are accepted again")


def closes(server: Server) -> dict[str, Any]:
    """Wait until nothing is left in the DLQ, and stop; return the accounting."""

    def closed() -> bool:
        found = server.metrics()
        accounting.check_equation(found)
        return not found["dlq_files_current"]

    server.until(closed, "the DLQ empties")
    assert server.stop() == 0, server.log_text()
    return accounting.check_stopped(server.logs())


def account(client: Client, bucket: Bucket, serve: Serve) -> None:
    """Let a next run store what the stop has left on disk, and account for every event."""
    last = serve()
    last.until(last.settled, "all is stored")
    accounting.check(client.accepted, bucket.stored())


@pytest.mark.parametrize("kind", LOSSES, indirect=True)
def test_a_directory_that_comes_back_in_time_is_used_on(
    kind: type[Loss], serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, kind=kind.kind, workers=2, BATCH_SIZE="10", FLUSH_INTERVAL="10m")
    loss, client = kind(server), Client()
    workers = server.worker_pids()
    s3.fail("503")
    client.must_send(server, count=10, requests=3)
    client.must_send(server, count=3)
    loss.begin()
    is_refused(client, server)
    loss.undo()
    accepts(client, server)
    assert server.worker_pids() == workers
    assert loss.directories() == [loss.own]
    s3.heal()
    assert not closes(server)["set_aside"]
    account(client, bucket, serve)


@pytest.mark.parametrize("kind", LOSSES, indirect=True)
def test_who_has_lost_its_directory_makes_another_and_what_was_in_it_is_stored_once(
    kind: type[Loss], serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, kind=kind.kind, BATCH_SIZE="10", FLUSH_INTERVAL="10m", **hasty())
    loss, client = kind(server), Client()
    client.must_spill(server, s3, count=10, requests=3)
    client.must_send(server, count=3)
    loss.begin()
    is_refused(client, server)
    lost = len(client.accepted)
    accepts(client, server)
    assert server.events("directory_lost")
    found = server.metrics()
    accounting.check_equation(found)
    assert found['dlq_events_set_aside{reason="directory_lost"}'] == lost
    s3.heal()
    loss.bring_back()
    server.until(
        lambda: server.metrics()["events_adopted_total"] == lost, "what was lost is taken over"
    )
    closes(server)
    account(client, bucket, serve)


def test_who_stood_still_while_another_took_its_directory_over_accepts_nothing_there(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "boot").write_text("00000000-0000-4000-8000-000000000000")
    # its arbiter must not take its worker for hanging when all go on
    settings = {"via": s3, "gunicorn": "--timeout 300", "BATCH_SIZE": "10", "FLUSH_INTERVAL": "10m"}
    settings |= hasty()
    s3.fail("503")
    sleeper, other = serve(**settings), serve(**settings, BOOT_FILE=str(tmp_path / "boot"))
    client = Client()
    client.must_send(sleeper, count=10, requests=3)
    sleeper.until(sleeper.all_on_disk, "the batches are in the DLQ")
    with closing(sleeper.connection()) as waiting:
        client.send(sleeper, count=3, on=waiting)
        with sleeper.frozen():
            lose_locks(sleeper.own_dir)
            s3.heal()
            other.until(lambda: len(bucket.stored()) == 33, "all is stored by the other server")
            waiting.request("POST", "/collect", '{"n":"late"}', {"Content-Type": "text/plain"})
        assert waiting.getresponse().status == 503
    accepts(client, sleeper)
    assert sleeper.metrics()['dlq_events_set_aside{reason="directory_lost"}'] == 30
    assert other.metrics()["events_adopted_total"] == 33
    for server in (sleeper, other):
        closes(server)
    account(client, bucket, serve)


@both_workers
def test_no_worker_goes_on_in_a_directory_that_its_server_has_given_up(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, workers=2, BATCH_SIZE="10", FLUSH_INTERVAL="10m", **hasty())
    loss, client = Loss(server), Client()
    client.must_spill(server, s3, count=10, requests=3)
    client.must_send(server, count=3)
    loss.begin()
    eventually(lambda: server.events("directory_gone"), 20, "a worker has noticed it")
    server.kill_worker()  # the next one in its place knows for less long that the directory is gone
    server.until(lambda: len(server.events("directory_made")) == 2, "there is another one")
    loss.bring_back()
    s3.heal()
    accepts(client, server)
    server.until(
        lambda: loss.directories() == [server.own_dir], "the server has one directory again"
    )
    closes(server)
    account(client, bucket, serve)
