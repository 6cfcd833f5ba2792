"""What may be wrong around servers for a while, beside kills: stores, clocks, credentials.

Each trouble comes and goes, as often as one likes. Servers are started with its ``environ``.
"""

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from tests.support import credentials
from tests.support.ceph import Ceph
from tests.support.credentials import Container
from tests.support.faketime import Clock
from tests.support.faulty_s3 import FaultyS3

OUTAGES = ("500", "503", "hang", "reset", "lands_then_hangs", "lands_then_resets")
LIES = ("cut", "cut_then_hangs", "cut_then_resets", "flipped", "wrong_crc", "says_200")
#: What is answered to every request, as long as the trouble lasts.
WRONG_SERVERS = ("400", "web_page")

_OFFSETS_SECONDS = (7 * 60, 3600, 5 * 3600, 3 * 86400)


class Trouble(Protocol):
    """See the module."""

    def environ(self, place: int) -> dict[str, str]:
        """Return what the servers at a place need to have the trouble."""

    def come(self, rng: random.Random) -> None:
        """Begin, or begin in another way."""

    def go(self) -> None:
        """End."""


class Faults:
    """S3 fails, or lies: some requests, or all as long as it lasts."""

    def __init__(self, s3: FaultyS3, kinds: tuple[str, ...]) -> None:
        self._s3 = s3
        self._kinds = kinds

    def environ(self, place: int) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL_S3": self._s3.url}

    def come(self, rng: random.Random) -> None:
        kind = rng.choice(self._kinds)
        if kind in WRONG_SERVERS:
            self._s3.fail(kind, method="*")
        else:
            self._s3.fail(kind, times=rng.randint(1, 10), keeps=rng.choice((0, 1, 60, 200)))

    def go(self) -> None:
        self._s3.heal()


class Steps:
    """The clocks of the servers step, at each place another one."""

    def __init__(self, directory: Path, places: int) -> None:
        self._clocks = [Clock(directory / f"clock-{place}") for place in range(places)]

    def environ(self, place: int) -> dict[str, str]:
        return self._clocks[place].environ

    def come(self, rng: random.Random) -> None:
        rng.choice(self._clocks).set(seconds=rng.choice((1, -1)) * rng.choice(_OFFSETS_SECONDS))

    def go(self) -> None:
        for clock in self._clocks:
            clock.set()


class Keys:
    """Credentials can't be had; those that are held end soon."""

    def __init__(self, directory: Path, container: Container) -> None:
        self._source = credentials.token_file(directory, container)
        self._source.mended()
        self._broken = False

    def environ(self, place: int) -> dict[str, str]:
        return self._source.environ

    def come(self, rng: random.Random) -> None:
        if not self._broken:
            self._source.broken()
        self._broken = True

    def go(self) -> None:
        self._source.mended()
        self._broken = False


class Frost:
    """The gateway stands still, and does later what it was asked meanwhile."""

    def __init__(self, ceph: Ceph) -> None:
        self._ceph = ceph
        self._frozen = ExitStack()

    def environ(self, place: int) -> dict[str, str]:
        return {}

    def come(self, rng: random.Random) -> None:
        self.go()
        self._frozen.enter_context(self._ceph.frozen())

    def go(self) -> None:
        self._frozen.close()
