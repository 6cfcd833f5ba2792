"""Servers that die and come back on the same disk, the traffic that goes on, and its accounting.

Lives at one place follow each other; those at several places run side by side.
"""

import http.client
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.support import accounting
from tests.support.client import Receipt, Senders
from tests.support.command import run
from tests.support.dlq_dir import dlq_paths
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket, Endpoint
from tests.support.server import BIN, CONFIG, Server
from tests.support.witness import Witness

FAILPOINTS = Path(__file__).with_name("failpoints.py")

_RECOUNT_SECONDS = 15
_RECEIPTS = 5000  # in one command: its arguments have a limit
_SETTLE_SECONDS = 240  # intervals of the breaker's, recounts and takeovers, on a slow machine


_KILLED = re.compile(r"Worker \(pid:(\d+)\) was sent SIGKILL")
_CHANCE = random.Random(1)


class Failpoints:
    """The settings of ``failpoints.py``, and what became of them."""

    def __init__(
        self,
        diary: Path,
        seed: str,
        places: tuple[str, ...],
        deaths: int,
        *,
        up_to: int = 1,
        victim: str = "worker",
    ) -> None:
        self._places = places
        self._deaths = deaths
        self._diary = diary
        self._diary.touch()
        self.environ = {
            "FAILPOINTS": ",".join(places),
            "FAILPOINT_DEATHS": str(deaths),
            "FAILPOINT_UP_TO": str(up_to),
            "FAILPOINT_VICTIM": victim,
            "FAILPOINT_SEED": seed,
            "FAILPOINT_DIARY": str(diary),
        }

    @property
    def deaths(self) -> Counter[str]:
        """How many processes wrote that they are about to die, by place."""
        return Counter(place for place, _ in self._lines())

    @property
    def victims(self) -> set[str]:
        """The pids of the dead."""
        return {pid for _, pid in self._lines()}

    @property
    def done(self) -> bool:
        """Whether enough processes have died at every place."""
        deaths = self.deaths
        return all(deaths[place] >= self._deaths for place in self._places)

    def _lines(self) -> list[list[str]]:
        return [line.split() for line in self._diary.read_text().splitlines()]


class Lives:
    """One life of a server after the other, on one DLQ directory and one bucket."""

    def __init__(
        self,
        directory: Path,
        endpoint: Endpoint,
        bucket: Bucket,
        s3: FaultyS3,
        *,
        workers: int,
        **settings: str,
    ) -> None:
        self.s3 = s3
        self.bucket = bucket
        self.servers: list[Server] = []
        self.present: dict[int, Server] = {}  # by place
        #: Checks what answers say with DURABILITY=stored, as they come; None: does not.
        self.witness: Witness | None = Witness(s3, bucket)
        self._directory = directory
        self._workers = workers
        self._settings = (
            endpoint.environ
            | {"RAW_BUCKET": bucket.name, "AWS_ENDPOINT_URL_S3": s3.url, "SHUTDOWN_TIMEOUT": "6s"}
            | settings
        )

    @property
    def server(self) -> Server:
        """The present life at the first place."""
        return self.present[0]

    @property
    def dlq_dir(self) -> Path:
        return self.server.dlq_dir

    def launch(
        self, failpoints: Failpoints | None = None, *, place: int = 0, **settings: str
    ) -> Server:
        """Begin a life, and do not wait for it."""
        environ = self._settings | settings | (failpoints.environ if failpoints else {})
        config = FAILPOINTS if failpoints else CONFIG
        server = Server(self._directory, environ, workers=self._workers, config=config)
        self.servers.append(server.launch())
        self.present[place] = server
        return server

    def start(self, failpoints: Failpoints | None = None, **settings: str) -> Server:
        """Begin a life and wait until it serves."""
        server = self.launch(failpoints, **settings)
        self.wait_until_up()
        return server

    def wait_until_up(self) -> None:
        for server in self.present.values():
            server.until(server.is_up, "the server is ready")
            assert server.process.poll() is None, server.log_text()

    def journals(self) -> list[Path]:
        """Return the files of batches that are neither stored nor in the DLQ."""
        return list(self.dlq_dir.rglob("*.journal"))

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event from the logs of all lives."""
        return [line for server in self.servers for line in server.events(event)]

    def killed(self) -> set[str]:
        """Return the pids of the workers that died by SIGKILL, as the present arbiter saw it."""
        return set(_KILLED.findall(self.server.log_text()))

    def kill_worker(self, rng: random.Random = _CHANCE) -> bool:
        """Kill -9 a worker, in whatever state; tell whether there was one."""
        server = rng.choice(list(self.present.values()))
        try:
            os.kill(rng.choice(server.worker_pids()), signal.SIGKILL)
        except (IndexError, ProcessLookupError, FileNotFoundError):
            return False  # all of them have just died
        return True

    # --- the end

    def settle(self) -> None:
        """Heal S3 and wait until nothing that could be stored is on disk any more.

        Batches that failed for long enough to look as if it was their own fault wait in a
        later slot of the DLQ, and those that look too old are tried rarely; they stay there.
        """
        self.s3.heal()
        past = [server for server in self.servers if server not in self.present.values()]
        eventually(
            lambda: not any(map(_has_members, past)),
            60,
            "workers without their arbiter have ended",
            last_words=self._last_words,
        )
        eventually(self._at_rest, _SETTLE_SECONDS, "all is stored", last_words=self._last_words)

    def account(
        self, accepted: list[str], unanswered: list[str], receipts: Sequence[Receipt] = ()
    ) -> None:
        """Stop the servers, and check what is stored and what their accounting says.

        Every accepted event is stored once, and every stream has its numbers from 1 without
        gaps, for the bucket, for ``estat audit`` and for the servers themselves. Each receipt
        names the ids of its events, and ``estat audit`` finds them.
        """
        books = [self._books(server) for server in self.present.values()]
        codes = [server.stop() for server in self.present.values()]
        self._replay_put_off()
        assert not self.journals()
        assert not [path for path in self.dlq_dir.rglob("*.jsonl.gz") if path.is_file()]
        stored = self.bucket.stored()
        accounting.check(accepted, stored, unanswered=unanswered)
        accounting.check_receipts(receipts, stored)
        self._audit(len(stored))
        self._look_up(receipts)
        missing = list(map(accounting.missing, books))
        assert not any(missing), f"every event is stored, and the books miss {missing}: {books}"
        for server in self.present.values():
            accounting.check_stopped(server.logs())
        assert not any(codes), self._last_words()
        assert not (self.witness and self.witness.missing), "answered as stored before it was"

    def _books(self, server: Server) -> dict[str, float]:
        """Return the metrics; what they miss of the last moments of the dead, they find."""
        until = time.monotonic() + _RECOUNT_SECONDS
        while accounting.missing(found := server.metrics()) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def _at_rest(self) -> bool:
        found = [server.metrics() for server in self.present.values()]
        pending = dlq_paths(self.dlq_dir)
        waiting = [*filter(_put_off, pending), *dlq_paths(self.dlq_dir, "expired")]
        return (
            sum(metrics["events_pending"] for metrics in found) == 0
            and sum(metrics["dlq_files_current"] for metrics in found) == len(waiting)
            and all(map(_put_off, pending))
            and not dlq_paths(self.dlq_dir, "quarantine")
            and not self.journals()
        )

    def _replay_put_off(self) -> None:
        left = [*dlq_paths(self.dlq_dir), *dlq_paths(self.dlq_dir, "expired")]
        for root in {path.parents[2] for path in left}:
            self._estat(0, "dlq", "replay", "--dlq", str(root))

    def _audit(self, events: int) -> None:
        target = f"s3://{self.bucket.name}/raw"
        # 3: a killed process wrote no record, so its stream counts as open
        report = json.loads(
            self._estat((0, 3), "audit", target, "--dlq", str(self.dlq_dir), "--json", "--deep")
        )
        assert set(report["states"]) <= {"complete", "open"}, report
        assert not report["unreadable"], report
        assert sum(stream["events"] for stream in report["streams"]) == events

        # most servers were killed, and the hour may still go on; but it never has a gap
        for hour in {key[7:23].replace("/hr=", "T") for key in self.bucket.keys("raw/dt=")}:
            self._estat((0, 3), "audit", "--hour", hour)

    def _look_up(self, receipts: Sequence[Receipt]) -> None:
        for start in range(0, len(receipts), _RECEIPTS):
            some = receipts[start : start + _RECEIPTS]
            options = [f"--receipt={first}..{last}" for first, last, _ in some]
            report = json.loads(self._estat(0, "audit", "--json", *options))
            for receipt, looked_up in zip(some, report["receipts"], strict=True):
                found = looked_up["found"]
                assert {one["state"] for one in found} == {"stored"}, looked_up
                events = sum(one["last"] - one["first"] + 1 for one in found)
                assert events == len(receipt.names), looked_up

    def _estat(self, codes: int | tuple[int, ...], *arguments: str) -> str:
        result = run([str(BIN / "estat"), *arguments], env=self.server.environ, cwd=self._directory)
        expected = codes if isinstance(codes, tuple) else (codes,)
        assert result.returncode in expected, result
        return result.stdout

    def _last_words(self) -> str:
        on_disk = [*self.journals(), *dlq_paths(self.dlq_dir)]
        logs = [server.log_text()[-5000:] for server in self.present.values()]
        return "\n".join([f"{len(on_disk)} files on disk: {on_disk[:20]}", *logs])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()


def _put_off(path: Path) -> bool:
    """Tell whether a DLQ file is not due yet."""
    hour, put_off, _ = path.parent.name.partition("+")
    return bool(put_off) and hour > time.strftime("%Y-%m-%dT%H", time.gmtime())


def _has_members(server: Server) -> bool:
    """Tell whether any process of the server's group is left."""
    try:
        os.killpg(server.process.pid, 0)
    except ProcessLookupError:
        return False
    return True


class Traffic(Senders):
    """Clients in threads, each of which sends to the present life at one place."""

    def __init__(self, lives: Lives, seed: str, *, pause_seconds: float) -> None:
        super().__init__(3, "c")
        for client in self.clients:
            client.witness = lives.witness
        self._pause_seconds = pause_seconds
        self._lives = lives
        self._seed = seed

    def pause(self, seconds: float) -> None:
        """Let the traffic flow for a while."""
        self.end.wait(seconds)

    def run(self, number: int) -> None:
        client, rng = self.clients[number], random.Random(f"{self._seed}-{number}")
        place = number % len(self._lives.present)
        server = self._lives.present[place]
        connection = server.connection()
        while not self.end.is_set():
            if server is not self._lives.present[place]:
                connection.close()
                server = self._lives.present[place]
                connection = server.connection()
            try:
                answer = client.send(server, rng.randint(1, 20), on=connection)
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request connects again
                self.end.wait(0.03)
            else:
                # which worker is asked next is chance
                if answer.status != 202 or rng.random() < 0.05:
                    connection.close()
                self.end.wait(rng.uniform(0, self._pause_seconds))
        connection.close()
