"""Processes kill themselves between two steps of the data path, at every step that matters.

See ``tests.support.failpoints`` for how, and ``Lives.account`` for what must hold in the end.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dlq_dir import dlq_paths
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.lives import Failpoints, Lives, Traffic
from tests.support.s3 import Bucket, Moto

DEATHS = 9
SEED = "1"


@pytest.fixture
def lives(tmp_path: Path, moto: Moto, bucket: Bucket, s3: FaultyS3) -> Iterator[Lives]:
    with Lives(
        tmp_path, moto, bucket, s3, workers=3, BATCH_SIZE="50", S3_APP_RETRIES="0", S3_TIMEOUT="2s"
    ) as running:
        yield running


def die_at(
    lives: Lives,
    diary: Path,
    places: tuple[str, ...],
    *,
    up_to: int,
    kills: bool = False,
    heal_at_files: int = 0,
    **settings: str,
) -> None:
    """Let workers die at each place, under load, and account for every event.

    With ``kills``, workers are killed from outside as well, for the others to recover.
    With ``heal_at_files``, S3 works again once so many files are in the DLQ.
    """
    failpoints = Failpoints(diary, SEED, places, -(-DEATHS // len(places)), up_to=up_to)
    lives.start(failpoints, **settings)
    with Traffic(lives, SEED, pause_seconds=0.02) as traffic:
        if heal_at_files:
            eventually(
                lambda: len(dlq_paths(lives.dlq_dir)) > heal_at_files, 60, "there is much to replay"
            )
            lives.s3.heal()

        next_kill = 300

        def enough() -> bool:
            nonlocal next_kill
            if kills and len(traffic.accepted) > next_kill:
                lives.kill_worker()
                next_kill = len(traffic.accepted) + 300
            return failpoints.done

        eventually(
            enough, 120, "enough workers have died", last_words=lambda: str(failpoints.deaths)
        )
    assert failpoints.deaths.total() >= DEATHS
    eventually(lambda: failpoints.victims <= lives.killed(), 10, "each of them has really died")
    lives.settle()
    lives.account(traffic.accepted, traffic.unanswered)


@pytest.mark.parametrize(
    ("durability", "place", "up_to"),
    [
        # the place is in a function of another: compiled, they do not meet there
        pytest.param("journal", "appended", 30, marks=pytest.mark.interpreted),
        ("fsync", "synced", 30),
        ("stored", "put", 5),
    ],
    ids=["after the append", "after the sync", "after the PUT"],
)
def test_killed_before_the_answer_an_event_is_stored_once_or_not_at_all(
    lives: Lives, tmp_path: Path, durability: str, place: str, up_to: int
) -> None:
    die_at(lives, tmp_path / "diary", (place,), up_to=up_to, DURABILITY=durability)


def test_killed_between_seal_and_put_every_accepted_event_is_stored_once(
    lives: Lives, tmp_path: Path
) -> None:
    die_at(lives, tmp_path / "diary", ("sealed", "attempting"), up_to=5)


@pytest.mark.quick
def test_killed_between_put_and_the_journals_unlink_every_accepted_event_is_stored_once(
    lives: Lives, tmp_path: Path
) -> None:
    die_at(lives, tmp_path / "diary", ("put", "put_booked"), up_to=5)


def test_killed_between_the_dlq_files_rename_and_the_journals_unlink_nothing_is_stored_twice(
    lives: Lives, s3: FaultyS3, tmp_path: Path
) -> None:
    s3.fail("503")
    die_at(lives, tmp_path / "diary", ("spilled", "spilled_booked"), up_to=5)


def test_killed_while_it_recovers_a_siblings_journals_a_worker_leaves_them_to_the_next(
    lives: Lives, s3: FaultyS3, tmp_path: Path
) -> None:
    s3.fail("hang")  # so that each of the dead leaves several journals
    places = ("recovered", "recovered_booked", "between_journals")
    die_at(lives, tmp_path / "diary", places, up_to=3, kills=True, S3_TIMEOUT="30s")


def test_killed_between_a_replay_and_the_dlq_files_unlink_nothing_is_stored_twice(
    lives: Lives, s3: FaultyS3, tmp_path: Path
) -> None:
    s3.fail("503")
    die_at(
        lives,
        tmp_path / "diary",
        ("replayed", "replayed_booked"),
        up_to=3,
        BATCH_SIZE="10",
        heal_at_files=150,
    )


def test_killed_whole_in_the_middle_of_recovery_again_and_again_a_server_ends_with_all_stored(
    lives: Lives, s3: FaultyS3, tmp_path: Path
) -> None:
    s3.fail("hang")
    lives.start(BATCH_SIZE="10", S3_TIMEOUT="30s")
    places = ("recovered", "recovered_booked", "between_journals")
    with Traffic(lives, SEED, pause_seconds=0.02) as traffic:
        eventually(lambda: len(lives.journals()) > 80, 60, "there is much to recover")
        lives.server.kill()
        for life in range(DEATHS):
            seed = f"{SEED}-{life}"
            failpoints = Failpoints(
                tmp_path / f"diary-{life}", seed, places, 1, up_to=3, victim="group"
            )
            server = lives.launch(
                failpoints, WEB_CONCURRENCY="1", BATCH_SIZE="10", S3_TIMEOUT="30s"
            )
            server.wait(60)
            assert failpoints.deaths.total() == 1, server.log_text()
        lives.start()
    lives.settle()
    lives.account(traffic.accepted, traffic.unanswered)
