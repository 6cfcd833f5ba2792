"""Servers together on one DLQ_DIR, each in namespaces of its own and with a client of its own."""

import os
import random
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tests.support import accounting
from tests.support.client import Load
from tests.support.dlq_dir import server_dirs
from tests.support.eventually import eventually
from tests.support.lease import CONFIG, LEASE_SECONDS
from tests.support.namespaces import Isolated
from tests.support.server import Server

_START_SECONDS = 90
_SETTLE_SECONDS = 120  # an interval of the breaker's and a few recounts, on a busy machine


class Crowd:
    """So many servers, started at the same moment; a context manager that leaves none running."""

    def __init__(
        self, directory: Path, settings: Mapping[str, str], count: int, *, workers: int
    ) -> None:
        hasty = {"LEASE": str(LEASE_SECONDS)}
        self.servers = [
            Isolated(directory, hasty | settings, workers=workers, config=CONFIG)
            for _ in range(count)
        ]
        self.loads = [
            Load(server, clients=1, name=f"s{number}-", pause_seconds=0.05)
            for number, server in enumerate(self.servers)
        ]
        self._dlq_dir = directory / "dlq"

    def __enter__(self) -> Self:
        with ExitStack() as running:
            for server in self.servers:
                running.push(server)
            self.start(*self.servers)
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def accepted(self) -> list[str]:
        return [name for load in self.loads for name in load.accepted]

    @property
    def unanswered(self) -> list[str]:
        return [name for load in self.loads for name in load.unanswered]

    def directories(self) -> list[Path]:
        """Return the servers' directories that there are."""
        return server_dirs(self._dlq_dir)

    def last_words(self) -> str:
        return "\n".join(server.log_text()[-3000:] for server in self.servers)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Let every client send, for as long as the block."""
        with ExitStack() as sending:
            for load in self.loads:
                sending.enter_context(load)
            yield

    # --- what happens to them

    def start(self, *servers: Server) -> None:
        """Start servers at the same moment, and wait until all serve."""
        for server in servers:
            server.launch()
        for server in servers:
            eventually(server.is_up, _START_SECONDS, "it is up", last_words=server.log_text)
            assert server.running, server.log_text()

    def go_on(self, *loads: Load) -> None:
        """Wait until servers have accepted some more events; by default all."""
        chosen = loads or self.loads
        before = [len(load.accepted) for load in chosen]
        eventually(
            lambda: all(
                len(load.accepted) > count for load, count in zip(chosen, before, strict=True)
            ),
            _START_SECONDS,
            "events are accepted",
            last_words=self.last_words,
        )

    def worker(self, server: Isolated, rng: random.Random) -> None:
        """Kill -9 a worker."""
        os.kill(rng.choice(server.worker_pids()), signal.SIGKILL)

    def group(self, server: Isolated, _: random.Random) -> None:
        """Kill -9 a whole server, and start the next run."""
        server.kill()
        self.start(server)

    def arbiter(self, server: Isolated, _: random.Random) -> None:
        """Kill -9 an arbiter alone, and start the next run when its workers have ended."""
        os.kill(server.arbiter_pid, signal.SIGKILL)
        server.wait()
        self.start(server)

    def restart(self, server: Isolated, _: random.Random) -> None:
        """Stop a server with SIGTERM, and start it again."""
        self.stop(server)
        self.start(server)

    def freeze(self, server: Isolated, _: random.Random) -> None:
        """Stop every process of a server for longer than its lease, and let it go on."""
        with server.frozen():
            until = eventually(self._touched, 20, "a lock is there") + 2 * LEASE_SECONDS
            eventually(lambda: self._touched() > until, 60, "the others have gone on")

    def unlock(self, server: Isolated, _: random.Random) -> None:
        """Delete a server's lock, and wait until it has given its directory up."""
        with self._giving_up(server):
            (server.own_dir / "lock").unlink(missing_ok=True)

    def move(self, _: Isolated, __: random.Random) -> None:
        """Move DLQ_DIR away from all; bring back what was in it when all have given it up."""
        away = self._dlq_dir.with_name("away")
        with self._giving_up(*self.servers):
            self._dlq_dir.rename(away)
        for path in (away / "servers").iterdir():
            path.rename(self._dlq_dir / "servers" / path.name)
        shutil.rmtree(away)

    @contextmanager
    def _giving_up(self, *servers: Server) -> Iterator[None]:
        """Wait, after the block, until servers have others for the directories that they had."""
        before = [len(server.events("directory_made")) for server in servers]
        yield
        for server, count in zip(servers, before, strict=True):
            eventually(
                lambda server=server, count=count: len(server.events("directory_made")) > count,
                60,
                "the server has given its directory up",
                last_words=server.log_text,
            )

    def _touched(self) -> float:
        """Return when a server last wrote its lock."""
        return max((path / "lock").stat().st_mtime for path in self.directories())

    # --- the end

    def stop(self, server: Server) -> None:
        assert server.stop() == 0, server.log_text()
        accounting.check_stopped(server.logs())

    def settle(self, *living: Server) -> None:
        """Wait until all is stored; then nothing may be missing in any server's accounting."""
        for server in living:
            eventually(
                lambda server=server: self._settled(server, len(living)),
                _SETTLE_SECONDS,
                "all is stored and accounted for",
                last_words=lambda server=server: f"{server.metrics()}\n{server.log_text()[-5000:]}",
            )

    def _settled(self, server: Server, living: int) -> bool:
        accounting.check_equation(server.metrics())
        return server.settled() and len(self.directories()) == living
