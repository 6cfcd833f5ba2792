"""Kills at random instants: a worker, the arbiter or everything, while events flow.

One round is one DLQ directory and one bucket; everything in it is drawn from its
seed, but for the timing of the machine. It ends in the accounting.
"""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.lives import Lives, Traffic
from tests.support.s3 import Bucket, Endpoint

#: What is killed, of 25 kills.
_KINDS = {"worker": 20, "arbiter": 2, "group": 3}
_FAULTS = ("500", "503", "hang", "reset", "lands_then_hangs", "lands_then_resets")
_MOST_SECONDS = 0.5  # between two kills

#: Workers end by themselves without their arbiter; or whoever runs the server ends them.
_LEFT_ALONE = 0.5
#: A server that was started is given the time to serve; or it is killed in the middle.
_LET_START = 0.8


class Round:
    """So many kills, and the accounting."""

    def __init__(
        self,
        directory: Path,
        endpoint: Endpoint,
        bucket: Bucket,
        seed: str,
        kills: int,
        tell: Callable[["Round"], None] = lambda _: None,
    ) -> None:
        self.kills: Counter[str] = Counter()
        self.stored = 0
        self._rng = random.Random(seed)
        self._kinds = self._drawn(kills)
        self._tell = tell
        self._open = ExitStack()
        self._s3 = self._open.enter_context(FaultyS3(endpoint.port))
        self._lives = self._open.enter_context(
            Lives(
                directory,
                endpoint,
                bucket,
                self._s3,
                workers=2,
                BATCH_SIZE="50",
                S3_APP_RETRIES="1",
                S3_TIMEOUT="1s",
            )
        )
        self._traffic = Traffic(self._lives, seed, pause_seconds=0.05)

    @property
    def accepted(self) -> int:
        return sum(len(client.accepted) for client in self._traffic.clients)

    def run(self) -> None:
        """Kill, then account; raises what pytest's assertions raise."""
        with self._open:
            self._start()
            self._lives.wait_until_up()
            with self._traffic as traffic:
                for kind in self._kinds:
                    traffic.pause(self._rng.uniform(0, _MOST_SECONDS))
                    self._change_weather()
                    self._kill(kind)
                    self.kills[kind] += 1
                    self._tell(self)
                self._lives.wait_until_up()
            self._lives.settle()
            self.stored = self._lives.account(traffic.accepted, traffic.unanswered)
            self._tell(self)

    def _drawn(self, kills: int) -> list[str]:
        """Return what to kill, in which order; the share of each kind is not left to chance."""
        deck = [kind for kind, share in _KINDS.items() for _ in range(share)]
        drawn = (deck * (kills // len(deck) + 1))[:kills]
        self._rng.shuffle(drawn)
        return drawn

    def _start(self) -> None:
        self._lives.launch(DURABILITY=self._rng.choice(("journal", "fsync")))
        if self._rng.random() < _LET_START:
            self._lives.wait_until_up()

    def _change_weather(self) -> None:
        chance = self._rng.random()
        if chance < 0.2:
            self._s3.heal()
        elif chance < 0.4:
            kind = self._rng.choice(_FAULTS)
            self._s3.fail(kind, times=self._rng.randint(1, 10))

    def _kill(self, kind: str) -> None:
        if kind == "worker":
            eventually(lambda: self._lives.kill_worker(self._rng), 60, "there is a worker to kill")
            return
        server = self._lives.server
        if kind == "arbiter":
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait(timeout=20)
            if self._rng.random() > _LEFT_ALONE:
                self._traffic.pause(self._rng.uniform(0, _MOST_SECONDS))
                with suppress(ProcessLookupError):
                    os.killpg(server.process.pid, signal.SIGKILL)
        else:
            server.kill()
        self._start()
