"""Kills at random instants, in CI; ``make soak`` goes on for as long as one likes."""

import os
import random
from pathlib import Path

import pytest

from tests.conftest import both_workers
from tests.fault.chaos import Round, drawn
from tests.support.ceph import Ceph
from tests.support.s3 import Bucket, Moto


def seed() -> str:
    found = os.environ.get("KILLS_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"to repeat this run: KILLS_SEED={found}")
    return found


#: Of 25 kills.
KINDS = {"worker": 20, "arbiter": 2, "group": 3}


@pytest.mark.parametrize("kills", [pytest.param(25, marks=both_workers), 75])
def test_after_a_hundred_kills_at_random_instants_every_accepted_event_is_stored_once(
    kills: int, tmp_path: Path, moto: Moto, bucket: Bucket
) -> None:
    chosen = seed()
    chaos = Round(tmp_path, moto, bucket, chosen, kills, drawn(chosen))
    chaos.run()
    assert chaos.kills == {kind: share * kills // 25 for kind, share in KINDS.items()}
    assert chaos.accepted > 10 * kills


def test_kills_while_the_gateway_stands_still_for_seconds_store_every_accepted_event_once(
    tmp_path: Path, ceph: Ceph
) -> None:
    chaos = Round(tmp_path, ceph, ceph.new_bucket(), seed(), 25, [])
    chaos.run()
    assert chaos.kills == KINDS
    assert chaos.accepted > 1000
