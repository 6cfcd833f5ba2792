"""Kills at random instants: a worker, the arbiter or everything, while events flow.

One round is one DLQ directory and one bucket; everything in it is drawn from its
seed, but for the timing of the machine. It ends in the accounting.
"""

import http.client
import os
import random
import signal
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.fault.troubles import LIES, OUTAGES, WRONG_SERVERS, Faults, Frost, Keys, Steps, Trouble
from tests.support import faketime
from tests.support.ceph import Ceph
from tests.support.credentials import Container
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.lives import Lives, Traffic
from tests.support.s3 import Bucket, Endpoint

#: What is killed, of 25 kills.
_KINDS = {"worker": 20, "arbiter": 2, "group": 3}
_MOST_SECONDS = 0.5  # between two kills

#: Workers end by themselves without their arbiter; or whoever runs the server ends them.
_LEFT_ALONE = 0.5
#: A server that was started is given the time to serve; or it is killed in the middle.
_LET_START = 0.8
#: Events are given the time to flow: a busy machine starts workers more slowly than they die.
_LET_FLOW = 0.4

#: What may be wrong beside the kills; an outage of S3 always may.
TWO_SERVERS = "two servers"
LYING_STORE = "a lying store"
CLOCKS = "clocks"
CREDENTIALS = "credentials"


def drawn(seed: str) -> list[str]:
    """Return what is wrong in the round of a seed, of all that this machine can do."""
    possible = [TWO_SERVERS, LYING_STORE, CREDENTIALS] + [CLOCKS] * bool(faketime.library())
    rng = random.Random(seed)
    return [kind for kind in possible if rng.random() < 0.5]


class Round:
    """So many kills, and the accounting."""

    def __init__(
        self,
        directory: Path,
        endpoint: Endpoint,
        bucket: Bucket,
        seed: str,
        kills: int,
        wrong: list[str],
    ) -> None:
        self.kills: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._kinds = self._drawn(kills)
        self._places = 2 if TWO_SERVERS in wrong else 1
        self._open = ExitStack()
        self._s3 = self._open.enter_context(FaultyS3(endpoint.port))
        self._troubles = self._made(directory, endpoint, wrong)
        settings = {"BATCH_SIZE": "50", "S3_APP_RETRIES": "1", "S3_TIMEOUT": "1s"}
        self._lives = self._open.enter_context(
            Lives(directory, endpoint, bucket, self._s3, workers=2, **settings)
        )
        if isinstance(endpoint, Ceph):
            self._lives.witness = None  # it would stand still with the gateway, and the clients too
        self._traffic = Traffic(self._lives, seed, pause_seconds=0.05)

    @property
    def accepted(self) -> int:
        return len(self._traffic.accepted)

    @property
    def receipts(self) -> int:
        return len(self._traffic.receipts)

    @property
    def witnessed(self) -> int:
        """How many events were looked for in the store at the moment of their answer."""
        return self._lives.witness.events if self._lives.witness else 0

    def run(self) -> None:
        """Kill, then account; raises what pytest's assertions raise."""
        with self._open:
            for place in range(self._places):
                self._start(place)
            self._lives.wait_until_up()
            with self._traffic as traffic:
                for kind in self._kinds:
                    self._let_flow(self._rng.uniform(0, _MOST_SECONDS))
                    self._change_weather()
                    self._kill(kind)
                    self.kills[kind] += 1
                for trouble in self._troubles:
                    trouble.go()
                self._lives.wait_until_up()
            self._lives.settle()
            self._lives.account(traffic.accepted, traffic.unanswered, traffic.receipts)

    def _made(self, directory: Path, endpoint: Endpoint, wrong: list[str]) -> list[Trouble]:
        kinds = OUTAGES + (LIES + WRONG_SERVERS) * (LYING_STORE in wrong)
        troubles: list[Trouble] = [Faults(self._s3, kinds)]
        if CLOCKS in wrong:
            troubles.append(Steps(directory, self._places))
        if CREDENTIALS in wrong:
            troubles.append(Keys(directory, self._open.enter_context(Container())))
        if isinstance(endpoint, Ceph):
            troubles.append(Frost(endpoint))
            self._open.callback(troubles[-1].go)
        return troubles

    def _drawn(self, kills: int) -> list[str]:
        """Return what to kill, in which order; the share of each kind is not left to chance."""
        deck = [kind for kind, share in _KINDS.items() for _ in range(share)]
        drawn = (deck * (kills // len(deck) + 1))[:kills]
        self._rng.shuffle(drawn)
        return drawn

    def _start(self, place: int) -> None:
        settings = {
            "DURABILITY": self._rng.choice(("journal", "fsync", "stored")),
            "RECEIPTS": self._rng.choice(("true", "false")),
            "REJECTED_PREFIX": self._rng.choice(("rejected", "")),
        }
        if settings["DURABILITY"] == "stored":
            settings["STORED_INTERVAL"] = "20ms"  # or clients that wait send little
        for trouble in self._troubles:
            settings |= trouble.environ(place)
        server = self._lives.launch(place=place, **settings)
        if self._rng.random() < _LET_START:
            server.until(server.is_up, "the server is ready")

    def _let_flow(self, seconds: float) -> None:
        before = self.accepted
        with suppress(OSError, http.client.HTTPException):  # it may be down
            self._lives.present[0].post('{"n":NaN}')
        self._traffic.pause(seconds)
        if self._rng.random() < _LET_FLOW:
            eventually(lambda: self.accepted > before, 60, "events are accepted")

    def _change_weather(self) -> None:
        for trouble in self._troubles:
            chance = self._rng.random()
            if chance < 0.2:
                trouble.go()
            elif chance < 0.4:
                trouble.come(self._rng)

    def _kill(self, kind: str) -> None:
        if kind == "worker":
            eventually(lambda: self._lives.kill_worker(self._rng), 60, "there is a worker to kill")
            return
        place = self._rng.randrange(self._places)
        server = self._lives.present[place]
        if kind == "arbiter":
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait(timeout=20)
            if self._rng.random() > _LEFT_ALONE:
                self._traffic.pause(self._rng.uniform(0, _MOST_SECONDS))
                with suppress(ProcessLookupError):
                    os.killpg(server.process.pid, signal.SIGKILL)
        else:
            server.kill()
        self._start(place)
