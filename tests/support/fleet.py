"""Servers behind a load balancer, each with a disk of its own, and one bucket for all."""

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.support import accounting
from tests.support.command import run
from tests.support.dlq_dir import events_on_disk
from tests.support.eventually import eventually
from tests.support.haproxy import FALL, Haproxy
from tests.support.hit_load import HitLoad
from tests.support.server import BIN, STOCK, Server

#: Several times what the balancer needs to find out that /ready is red: 2 checks.
_CHECK_SECONDS, _DRAIN_DELAY_SECONDS = 0.1, 1.5
assert _DRAIN_DELAY_SECONDS > 5 * FALL * _CHECK_SECONDS

_DEFAULTS = {
    "DRAIN_DELAY": f"{_DRAIN_DELAY_SECONDS * 1000:.0f}ms",
    # a store that is slow because the machine is busy is not away
    "S3_TIMEOUT": "20s",
    "SHUTDOWN_TIMEOUT": "60s",
}

#: gunicorn's own worker waits for idle connections to end, so haproxy must keep none.
_PURGE_DELAY = "0" if STOCK else "60s"

NAMES = ("estat1", "estat2", "estat3")

_START_SECONDS = 60
_SETTLE_SECONDS = 90  # an interval of the breaker's, on a slow machine
_SOME_REQUESTS = 20


class Fleet:
    """Three servers, places for more, and haproxy; a context manager that leaves nothing running.

    Settings are those of every server. Those named in ``spare`` are not started. ``keep_alive`` is
    about the connections of the clients; those to the servers stay open.
    """

    def __init__(
        self,
        directory: Path,
        settings: dict[str, str],
        spare: tuple[str, ...] = (),
        *,
        keep_alive: bool = True,
        check_seconds: float = _CHECK_SECONDS,
    ) -> None:
        self.servers: dict[str, Server] = {}
        for name in (*NAMES, *spare):
            (directory / name).mkdir()
            self.servers[name] = Server(
                directory / name, _DEFAULTS | settings | {"INSTANCE_ID": name}
            )
        ports = {name: server.port for name, server in self.servers.items()}
        self.balancer = Haproxy(directory, ports, check_seconds, _PURGE_DELAY)
        self.load = HitLoad(directory, self.balancer.connection, keep_alive=keep_alive)
        self.stopped: list[dict[str, Any]] = []  # the accounting lines of lives that have ended
        self._spare = spare
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as running:
            for server in self.servers.values():
                running.callback(server.__exit__)
            self.start(*NAMES)
            running.enter_context(self.balancer)
            for name in self.servers:
                self.balancer.await_state(name, "DOWN" if name in self._spare else "UP")
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    # --- servers

    def start(self, *names: str) -> None:
        """Start servers, and wait until they serve."""
        for name in names:
            self.servers[name].launch()
        for name in names:
            server = self.servers[name]
            server.until(server.is_up, f"{name} is up", _START_SECONDS)

    def join(self, name: str) -> None:
        """Start a server, and wait until it takes its part of the load."""
        self.start(name)
        self.balancer.await_state(name, "UP")
        self.go_on()

    def stop(self, *names: str) -> None:
        """Stop servers with SIGTERM; none may have lost anything."""
        for name in names:
            self.servers[name].send_signal(signal.SIGTERM)
        for name in names:
            server = self.servers[name]
            code = server.wait()
            self.stopped.append(accounting.check_stopped(server.logs()))
            assert code == 0, server.log_text()

    def replace(self, name: str) -> None:
        """Stop a server and start it again, on the same port and disk."""
        self.stop(name)
        self.go_on()
        self.join(name)

    # --- load

    def go_on(self) -> None:
        """Let the load flow for a while, over every server that is up."""
        up = [name for name in self.servers if self.balancer.state(name) == "UP"]
        before = self.balancer.served()
        eventually(
            lambda: all(self.balancer.served()[n] >= before[n] + _SOME_REQUESTS for n in up),
            _START_SECONDS,
            f"{', '.join(up)} serve",
            last_words=self.balancer.log_text,
        )

    def check_nothing_failed(self) -> None:
        """Assert that every request was accepted."""
        logged = self.balancer.requests()
        failed = [(sent, logged.get(sent.name)) for sent in self.load.failed]
        assert not failed, f"{len(failed)} requests failed: {failed[:10]}\n{self.last_words()}"

    # --- events

    def settle(self) -> None:
        """Wait until all servers have stored what they have."""
        for server in self.servers.values():
            if server.running:
                server.until(server.settled, "all is stored", _SETTLE_SECONDS)

    def on_disk(self) -> list[dict[str, Any]]:
        """Return the events in the DLQs of all servers."""
        return [line for server in self.servers.values() for line in events_on_disk(server.dlq_dir)]

    def listed_in_dlqs(self) -> int:
        """Return how many events ``estat dlq ls`` counts on the disks of all servers."""
        reports = [
            self._estat(0, "dlq", "ls", "--json", "--dlq", str(server.dlq_dir))
            for server in self.servers.values()
        ]
        return sum(report["total"]["events"] for report in reports)

    def audit(self, bucket: str) -> dict[str, Any]:
        """Return the report of ``estat audit`` about a bucket in which some streams are open."""
        return self._estat(3, "audit", f"s3://{bucket}/raw", "--json")

    def _estat(self, code: int, *arguments: str) -> dict[str, Any]:
        done = run([BIN / "estat", *arguments], env=self.servers[NAMES[0]].environ)
        assert done.returncode == code, done
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def last_words(self) -> str:
        return "\n".join(server.log_text()[-3000:] for server in self.servers.values())
