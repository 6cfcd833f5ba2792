"""What dead servers left in DLQ_DIR, of this version or an earlier one, is taken over."""

import fcntl
import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.support import accounting, layouts
from tests.support.client import Client
from tests.support.dlq_dir import dlq_paths, server_dirs
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.lease import CONFIG
from tests.support.s3 import Bucket
from tests.support.server import Server

Layout = Callable[[Path, str], None]

THIS_BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
ANOTHER_BOOT = "00000000-0000-4000-8000-000000000000"

#: For longer than a server on another host may be silent.
LONG_SECONDS = 61

#: What ``leave`` leaves: to be retried, expired, in a journal; and what can't be read.
SENT_EVENTS, UNREADABLE_EVENTS = 10 + 20 + 3, 2
LEFT_EVENTS = SENT_EVENTS + UNREADABLE_EVENTS

every_layout = pytest.mark.parametrize(
    "layout",
    [
        pytest.param(layouts.flat, id="flat", marks=pytest.mark.quick),
        pytest.param(layouts.with_heartbeat, id="heartbeat"),
    ],
)


def let_pass(seconds: float, *paths: Path) -> None:
    """Let it be so long ago that files were written."""
    for path in paths:
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def leave(
    dlq_dir: Path, serve: Serve, s3: FaultyS3, client: Client, layout: Layout, boot: str = THIS_BOOT
) -> None:
    """Leave a DLQ_DIR as a server of an earlier version did that was killed, and S3 well."""
    server = serve(via=s3, DLQ_DIR=str(dlq_dir), BATCH_SIZE="10", FLUSH_INTERVAL="10m")
    client.must_spill(server, s3, count=10, requests=3)
    client.must_send(server, count=3)
    server.kill()
    (own,) = server_dirs(dlq_dir)
    (*expired, pending) = dlq_paths(own)
    for path in expired:
        slot = own / "expired" / path.parent.name
        slot.mkdir(exist_ok=True)
        path.rename(slot / path.name)
    unreadable = pending.name.replace(".10.", f".{UNREADABLE_EVENTS}.")
    (own / "quarantine" / unreadable).write_bytes(gzip.compress(b"no line\n"))
    layout(dlq_dir, boot)
    if boot == THIS_BOOT:  # the lock was made when that server started, a while ago
        let_pass(LONG_SECONDS, *dlq_dir.glob("servers/*/lock"))
    s3.heal()


def all_stored(bucket: Bucket, client: Client, *servers: Server) -> None:
    """Wait until every event is stored and every server's accounting closes."""

    def stored() -> bool:
        assert len(bucket.stored()) == len(client.accepted)
        for server in servers:
            accounting.check_equation(server.metrics())
        return all(server.settled() for server in servers)

    eventually(stored, 60, "all is stored", last_words=lambda: [s.log_text() for s in servers])
    accounting.check(client.accepted, bucket.stored())


def total(name: str, *servers: Server) -> float:
    return sum(server.metrics()[name] for server in servers)


def names_in(dlq_dir: Path) -> set[str]:
    return {path.name for path in dlq_dir.iterdir()}


@every_layout
def test_what_an_earlier_version_left_is_adopted_and_stored_once(
    layout: Layout, serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    client = Client()
    leave(tmp_path / "dlq", serve, s3, client, layout)
    server = serve(via=s3, workers=2)
    all_stored(bucket, client, server)
    found = server.metrics()
    assert found["events_adopted_total"] == LEFT_EVENTS
    assert found["s3_events_stored_total"] == SENT_EVENTS
    assert len(bucket.keys("raw_dlq/")) == 1, "what can't be read is kept for a person"
    assert names_in(tmp_path / "dlq") == {"servers"}
    assert len(server_dirs(tmp_path / "dlq")) == 1
    server.must_stop()
    assert server_dirs(tmp_path / "dlq") == []


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock as a living server does, for as long as the block."""
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def looks_around(server: Server) -> None:
    """Wait until the leader has looked at all directories a few times."""
    *_, own = (path / "lock" for path in server_dirs(server.dlq_dir))
    until = own.stat().st_mtime + 3
    eventually(lambda: own.stat().st_mtime > until, 60, "time has passed")


@pytest.mark.parametrize(
    ("layout", "lock"),
    [
        (layouts.flat, "leader.lock"),
        (layouts.flat, "journal/*/lock"),
        (layouts.with_heartbeat, "servers/*/lock"),
    ],
)
def test_a_living_server_of_an_earlier_version_is_left_alone(
    layout: Layout, lock: str, serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    client = Client()
    leave(tmp_path / "dlq", serve, s3, client, layout)
    (held,) = (tmp_path / "dlq").glob(lock)
    with locked(held):
        server = serve(via=s3)
        looks_around(server)
        assert held.exists()
        assert server.metrics()["events_adopted_total"] == 0
        assert bucket.stored() == []
    all_stored(bucket, client, server)
    assert server.metrics()["events_adopted_total"] == LEFT_EVENTS


def test_an_earlier_version_on_another_host_is_taken_over_when_it_has_long_been_silent(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    client = Client()
    leave(tmp_path / "dlq", serve, s3, client, layouts.with_heartbeat, ANOTHER_BOOT)
    (dead,) = server_dirs(tmp_path / "dlq")
    server = serve(via=s3)
    looks_around(server)
    assert dead.exists()
    let_pass(LONG_SECONDS, dead / "lock")
    all_stored(bucket, client, server)
    assert server.metrics()["events_adopted_total"] == LEFT_EVENTS


@pytest.mark.quick
def test_short_runs_on_a_network_volume_do_not_pile_up_directories(
    serve: Serve, s3: FaultyS3, bucket: Bucket, tmp_path: Path
) -> None:
    boot_file = tmp_path / "boot"
    settings: dict[str, Any] = {"via": s3, "config": CONFIG, "BOOT_FILE": str(boot_file)}
    dlq_dir, client = tmp_path / "dlq", Client()
    s3.fail("503")
    for number in range(3):
        boot_file.write_text(f"00000000-0000-4000-8000-{number:012}")
        server = serve(**settings)
        client.must_send(server, count=5)
        server.until(lambda: len(server_dirs(dlq_dir)) == 1, "the previous run is taken over")
        if number % 2:
            server.must_stop()
        else:
            server.kill()
            let_pass(LONG_SECONDS, *dlq_dir.glob("servers/*/lock"))
    s3.heal()
    last = serve(**settings)
    all_stored(bucket, client, last)
    assert last.metrics()["events_adopted_total"] == len(client.accepted)
    assert last.stop() == 0
    assert server_dirs(dlq_dir) == []
