"""A worker that was forked a moment ago, and still has the arbiter's handlers for signals."""

import os
import signal
from pathlib import Path

from tests.conftest import Serve, both_workers
from tests.support import accounting
from tests.support.client import Client
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.s3 import Bucket

pytestmark = both_workers

CONFIG = Path(__file__).parents[1] / "support" / "slow_birth.py"


class Birth:
    """A worker that is not born before it is told."""

    def __init__(self, directory: Path, age: int) -> None:
        self._pid = directory / "pid"
        self._until = directory / "born"
        self.settings = {
            "SLOW_AGE": str(age),
            "SLOW_PID": str(self._pid),
            "SLOW_UNTIL": str(self._until),
        }

    def await_fork(self) -> int:
        """Wait until the worker is there; return its pid."""
        return int(eventually(lambda: self._pid.read_text().strip(), 20, "the worker is forked"))

    def end(self) -> None:
        self._until.touch()


def test_a_worker_too_young_for_the_stops_signal_ends_with_the_server(
    serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    birth = Birth(tmp_path, age=2)
    server = serve(config=CONFIG, WEB_CONCURRENCY="2", SHUTDOWN_TIMEOUT="1h", **birth.settings)
    client = Client()
    client.must_send(server, count=10)
    birth.await_fork()
    assert server.stop() == 0
    assert len(server.events("worker_started")) == 2, "it was told to stop before it had started"
    assert len(server.events("worker_drained")) == 2
    accounting.check(client.accepted, bucket.stored())


def test_a_signal_to_a_worker_that_is_born_in_the_drain_delay_hurries_nobody(
    serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    birth = Birth(tmp_path, age=3)
    server = serve(
        workers=2, config=CONFIG, DRAIN_DELAY="10m", SHUTDOWN_TIMEOUT="1h", **birth.settings
    )
    server.send_signal(signal.SIGTERM)
    eventually(lambda: server.get("/ready").status == 503, 20, "the delay has begun")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    os.kill(birth.await_fork(), signal.SIGTERM)
    birth.end()
    eventually(lambda: len(server.events("worker_started")) == 3, 20, "it begins to serve")
    assert server.events("worker_drained") == []
    client = Client()
    client.must_send(server, count=10, requests=3)
    assert server.stop() == 0  # the second signal, which ends the delay
    accounting.check(client.accepted, bucket.stored(), events_on_disk(server.dlq_dir))
