"""``make soak``: random kills for an hour, in rounds that each end in the accounting.

S3 fails all the while. What else is wrong in a round, its seed says: a store that lies, clocks
that step (where libfaketime is installed), credentials that come and go, two servers on one
DLQ directory.

It stops at the first violation and keeps what tells about it: the servers' logs,
the DLQ directory, and the seed that repeats the round.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from tests.fault.chaos import Round, drawn
from tests.support.s3 import Moto

_UNITS = {"s": 1, "m": 60, "h": 3600}
_KILLS = 50  # in a round: its events are kept in memory, to compare
_PROGRESS_SECONDS = 10  # between two lines where there is no terminal


class Soak:
    """The rounds so far, and the line that tells about them."""

    def __init__(self, duration_seconds: float, seed: str) -> None:
        self._seed = seed
        self._duration_seconds = duration_seconds
        self._began = time.monotonic()
        self._rounds = 0
        self._kills: Counter[str] = Counter()
        self._accepted = 0
        self._stored = 0
        self._told_at = 0.0
        self._running: Round | None = None

    @property
    def over(self) -> bool:
        return time.monotonic() - self._began >= self._duration_seconds

    def run_round(self, directory: Path) -> None:
        """Run one round and leave nothing of it, unless it fails."""
        directory.mkdir()
        with Moto(directory) as moto:
            seed = self.round_seed
            self._running = chaos = Round(
                directory, moto, moto.new_bucket(), seed, _KILLS, drawn(seed), self._progress
            )
            chaos.run()
        self._running = None
        self._rounds += 1
        self._kills += chaos.kills
        self._accepted += chaos.accepted
        self._stored += chaos.stored
        shutil.rmtree(directory)

    @property
    def round_seed(self) -> str:
        """The seed of the round that runs: that of the whole for the first."""
        return self._seed if not self._rounds else f"{self._seed}-{self._rounds}"

    def line(self) -> str:
        """Return the state in one line."""
        chaos = self._running
        kills = self._kills + (chaos.kills if chaos else Counter())
        accepted = self._accepted + (chaos.accepted if chaos else 0)
        elapsed = int(time.monotonic() - self._began)
        by_kind = ", ".join(f"{kills[kind]} {kind}" for kind in ("worker", "arbiter", "group"))
        return (
            f"{elapsed // 3600}:{elapsed // 60 % 60:02d}:{elapsed % 60:02d}  "
            f"{kills.total()} kills ({by_kind})  {accepted} events accepted, "
            f"{self._stored} stored and checked in {self._rounds} rounds  seed {self._seed}"
            f"{''.join(f', {kind}' for kind in chaos.wrong) if chaos else ''}"
        )

    def _progress(self, _: Round) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{self.line()}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)


def main() -> int:
    """Soak; 0 if the promise held, 1 if not."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--duration", type=_seconds, default="1h", help="such as 90s, 10m, 1h")
    parser.add_argument("--seed", default="", help="repeats a run, or one round of it")
    args = parser.parse_args()
    soak = Soak(args.duration, args.seed or str(random.SystemRandom().randrange(10**6)))
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    while not soak.over:
        directory = place / soak.round_seed
        try:
            soak.run_round(directory)
        except KeyboardInterrupt:
            shutil.rmtree(place)
            print(f"\n{soak.line()}\ninterrupted", file=sys.stderr)
            return 130
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - whatever it is, it tells something
            (directory / "violation.txt").write_text(traceback.format_exc())
            print(f"\n{soak.line()}\n{traceback.format_exc()}", file=sys.stderr)
            print(f"\nkept: {directory}\nseed: {soak.round_seed}", file=sys.stderr)
            return 1
    place.rmdir()
    print(f"\n{soak.line()}\nthe promise held: 0 lost, 0 doubled", file=sys.stderr)
    return 0


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 10m or 1h")
    return int(match[1]) * _UNITS[match[2]]


if __name__ == "__main__":
    sys.exit(main())
