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
import tempfile
import time
from pathlib import Path

from tests.fault.chaos import Round, drawn
from tests.support.s3 import Moto

_UNITS = {"s": 1, "m": 60, "h": 3600}
_KILLS = 50  # in a round: its events are kept in memory, to compare


def main() -> None:
    """Soak; raises what a violation raises."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--duration", type=_seconds, default="1h", help="such as 90s, 10m, 1h")
    parser.add_argument("--seed", default="", help="repeats a run, or one round of it")
    args = parser.parse_args()
    first = args.seed or str(random.SystemRandom().randrange(10**6))
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    until = time.monotonic() + args.duration
    rounds = 0
    while time.monotonic() < until:
        seed = f"{first}-{rounds}" if rounds else first
        wrong = drawn(seed)
        print(f"seed {seed}: {', '.join(wrong)}; kept if it fails: {place / seed}", flush=True)
        (place / seed).mkdir()
        with Moto(place / seed) as moto:
            chaos = Round(place / seed, moto, moto.new_bucket(), seed, _KILLS, wrong)
            chaos.run()
        print(
            f"  {dict(chaos.kills)}, {chaos.accepted} events accepted and stored once, "
            f"{chaos.receipts} receipts found, "
            f"{chaos.witnessed} seen in the store when they were answered",
            flush=True,
        )
        shutil.rmtree(place / seed)
        rounds += 1
    place.rmdir()
    print(f"the promise held in {rounds} rounds: 0 lost, 0 doubled")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 10m or 1h")
    return int(match[1]) * _UNITS[match[2]]


if __name__ == "__main__":
    main()
