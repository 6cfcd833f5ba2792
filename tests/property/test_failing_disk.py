"""A disk that fails in any one or two calls and then works again leaves nothing in the way."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.support.eras import DLQ_DIR, Era, on
from tests.support.tape import CALLS, Tape

pytestmark = pytest.mark.interpreted

FAULTS = [*itertools.combinations(CALLS, 1), *itertools.combinations(CALLS, 2)]


def accepted(tape: Tape) -> int:
    return sum(step.call == "mark" and step.mark[0] == "accepted" for step in tape.steps)


@pytest.mark.parametrize("durability", ["journal", "fsync"])
@pytest.mark.parametrize("before", [("recover",), ("send", 1)], ids=["first", "later"])
def test_events_are_taken_again_whatever_two_calls_failed_before(
    durability: str, before: tuple[Any, ...], tmp_path: Path
) -> None:
    stuck = []
    for number, calls in enumerate(FAULTS):
        root = tmp_path / str(number)
        root.mkdir()
        tape = Tape(str(root))
        with on(tape):
            era = Era(tape, durability, itertools.count(1))
            era.take(before)
            for call in calls:
                era.take(("fault", call))
            era.take(("send", 1))
            tape.heal()
            so_far = accepted(tape)
            era.take(("mend",))
            era.take(("send", 1))
            tape.bury()
        if accepted(tape) == so_far:
            stuck.append(calls)
    assert not stuck


def test_streams_that_ended_with_a_failed_append_leave_no_directory_and_no_lock_behind(
    tmp_path: Path,
) -> None:
    tape = Tape(str(tmp_path))
    with on(tape):
        era = Era(tape, "fsync", itertools.count(1))
        for _ in range(20):
            era.take(("fault", "fdatasync"))
            era.take(("send", 1))
            era.take(("mend",))
        era.take(("send", 1))
        era.take(("mend",))
        assert accepted(tape) == 1
        assert len(list((tmp_path / DLQ_DIR / "journal").iterdir())) == 1
        assert tape.open_files == 2, "the stream's lock and its journal"
        tape.bury()
