"""A hundred kills at random instants; ``make soak`` goes on for as long as one likes."""

import os
import random
from pathlib import Path

from tests.fault.chaos import Round
from tests.support.s3 import Bucket, Moto

KILLS = 100


def test_after_a_hundred_kills_at_random_instants_every_accepted_event_is_stored_once(
    tmp_path: Path, moto: Moto, bucket: Bucket
) -> None:
    seed = os.environ.get("KILLS_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"to repeat this run: KILLS_SEED={seed}")
    chaos = Round(tmp_path, moto, bucket, seed, KILLS)
    chaos.run()
    assert chaos.kills == {"worker": 80, "arbiter": 8, "group": 12}
    assert chaos.accepted > 1000
