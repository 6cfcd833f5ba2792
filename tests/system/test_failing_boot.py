"""A worker that can't boot is tried again, with pauses; whoever serves goes on serving."""

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Serve, need
from tests.support import accounting
from tests.support.client import Client, Load
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.s3 import Bucket
from tests.support.server import CONFIG as PRODUCTION
from tests.support.server import Server
from tests.support.strace import injected, strace_path

CONFIG = Path(__file__).parents[1] / "support" / "failing_boot.py"


@pytest.fixture
def fault(tmp_path: Path) -> Path:
    """The file that makes new workers fail while it is there."""
    return tmp_path / "boot-fails"


def pauses(server: Server) -> list[float]:
    return [line["retry_seconds"] for line in server.events("worker_not_started")]


def forks(server: Server) -> int:
    return sum(line["event"].startswith("Booting worker") for line in server.logs())


@pytest.mark.parametrize("ending", [pytest.param("error", marks=pytest.mark.quick), "killed"])
def test_a_worker_that_can_not_boot_is_tried_again_while_others_serve(
    ending: str, serve: Serve, bucket: Bucket, fault: Path
) -> None:
    server = serve(workers=2, config=CONFIG, BOOT_FAILS=str(fault))
    client = Client()
    client.must_send(server, count=10)
    before = forks(server)
    fault.write_text(ending)
    victim, healthy = server.worker_pids()[:2]
    os.kill(victim, signal.SIGKILL)
    server.until(lambda: len(pauses(server)) >= 3, "it was tried again")
    assert pauses(server)[:3] == [1, 2, 4]
    assert forks(server) - before <= len(pauses(server)) + 1, "not without a pause"
    assert healthy in server.worker_pids()
    client.must_send(server, count=10, requests=3)
    fault.unlink()
    server.until(lambda: len(server.events("worker_started")) == 3, "it serves")
    accounting.check_equation(server.metrics())
    server.must_stop()
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


@pytest.mark.quick
def test_a_reload_whose_workers_can_not_boot_stops_nobody_and_goes_on_when_they_can(
    serve: Serve, bucket: Bucket, fault: Path
) -> None:
    server = serve(workers=2, config=CONFIG, BOOT_FAILS=str(fault))
    old = set(server.worker_pids())
    fault.write_text("error")
    with Load(server) as load:
        server.send_signal(signal.SIGHUP)
        eventually(lambda: len(pauses(server)) >= 2, 30, "it was tried again")
        before = len(load.accepted)
        eventually(lambda: len(load.accepted) > before + 300, 20, "the old ones serve")
        assert old <= set(server.worker_pids())
        fault.unlink()
        server.until(lambda: not old & set(server.worker_pids()), "the old ones are replaced")
    accounting.check_equation(server.metrics())
    server.must_stop()
    accounting.check(load.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


@pytest.mark.parametrize(
    ("line", "why"),
    [("what is this", "can't be used"), ("worker_class = 'sync'", "worker class sync ")],
)
def test_a_reload_with_a_configuration_file_that_can_not_work_stops_nobody(
    line: str, why: str, serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(PRODUCTION.read_text())
    server = serve(workers=2, config=config)
    old = set(server.worker_pids())
    config.write_text(f"{PRODUCTION.read_text()}\n{line}\n")
    with Load(server) as load:
        server.send_signal(signal.SIGHUP)
        server.until(lambda: not old & set(server.worker_pids()), "the old workers are replaced")
        before = len(load.accepted)
        eventually(lambda: len(load.accepted) > before + 100, 20, "the new ones serve")
    (refused,) = server.events("reload_refused")
    assert why in refused["problem"]
    assert len(server.worker_pids()) == 2
    server.must_stop()
    accounting.check(load.accepted, bucket.stored(), events_on_disk(server.dlq_dir))


def test_a_server_whose_workers_can_not_boot_at_its_start_ends_with_the_reason(
    serve: Serve, fault: Path, tmp_path: Path
) -> None:
    fault.write_text("error")
    server = serve(workers=2, config=CONFIG, BOOT_FAILS=str(fault))
    assert server.wait() == 3
    reasons = [line for line in server.logs() if line["event"] == "Reason: Worker failed to boot."]
    assert len(reasons) == 1
    assert forks(server) == 2


def test_a_fork_that_the_host_refuses_is_tried_again_while_others_serve(
    serve: Serve, bucket: Bucket
) -> None:
    need(strace_path(), "strace")
    server = serve(workers=2)
    client = Client()
    victim, healthy = server.worker_pids()[:2]
    with injected([server.process.pid], "clone,clone3,fork,vfork:error=EAGAIN"):
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(pauses(server)) >= 2, 30, "it was tried again")
        assert "temporarily unavailable" in server.events("worker_not_started")[0]["error"]
        assert server.worker_pids() == [healthy]
        client.must_send(server, count=10, requests=3)
    eventually(lambda: len(server.worker_pids()) == 2, 30, "there are two again")
    eventually(lambda: len(server.events("worker_started")) == 3, 30, "it serves")
    server.must_stop()
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
