"""DURABILITY=fsync survives a power failure at any moment, on a disk that keeps only its word.

A story (requests, stores, spills, faults, kills) is played with the real code on a
``Tape``. Then the power fails: after each step of the tape, with each of several
fates of what was not synced. What is left is recovered by the real code, and must
be what was promised. The last tests take a sync away, and the loss is found.
"""

import itertools
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estat.disk import files, journal
from estat.disk.dlq import DeadLetterQueue
from estat.errors import DiskError
from estat.pipeline import recovery
from tests.support import accounting
from tests.support.eras import Books, Era, Life, lines_of, on
from tests.support.examples import examples
from tests.support.lines import parse_lines
from tests.support.model_disk import EXTREMES, KEPT, Disk, Fate, Tree, chance, plant
from tests.support.tape import CALLS, Step, Tape

pytestmark = pytest.mark.interpreted

Story = list[tuple[Any, ...]]

#: Thousands of small directories are made and read back; no sync of theirs is for real.
_PLACE = "/dev/shm" if os.path.isdir("/dev/shm") else None


def steps_of(text: str) -> Story:
    """Return the steps that a text tells, with commas between them."""
    words = (step.split() for step in text.split(","))
    return [(name, *(int(n) if n.isdigit() else n for n in told)) for name, *told in words]


NAMED = {
    "stored and stopped": steps_of(
        "send 1 2, send 3, seal, send 2, store, send 1, stop, replay, replay"
    ),
    "written to the DLQ": steps_of(
        "send 2, seal, store_unheard, spill, send 3, seal, spill, defer, replay, hour, replay"
    ),
    "killed and adopted": steps_of(
        "send 2, send 3, kill 0, send 1, recover, send 1, kill 4, recover, recover, replay, replay"
    ),
    "a sync that failed": steps_of(
        "send 1, fault fdatasync, send 2 1, send 1, store, mend, send 2"
    ),
    "a cut that failed": steps_of(
        "send 1, fault short_write, fault ftruncate, send 2, send 1, kill 0, recover, send 1"
    ),
    "two power failures": steps_of("send 1 1, power 3, recover, send 2, power 4, send 2, recover"),
}

steps = st.one_of(
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(lambda sizes: ("send", *sizes)),
    st.sampled_from(
        steps_of("seal, store, store_unheard, spill, mend, recover, replay, defer, hour, stop")
    ),
    st.tuples(st.just("fault"), st.sampled_from(CALLS), st.integers(0, 4)),
    st.tuples(st.just("kill"), st.integers(0, 15)),
    st.tuples(st.just("power"), st.integers(0, 999)),
)
stories = st.lists(steps, min_size=2, max_size=14).map(lambda taken: [("send", 1), *taken])


class Loss(AssertionError):
    """What a power failure did, and when."""


def play(story: Story, durability: str, scratch: Path) -> Iterator[tuple[Tree, Books, list[Step]]]:
    """Play a story; for each time between power failures, return its beginning and its steps."""
    names = itertools.count(1)
    tree: Tree = {}
    books = Books()
    scenes = [list(group) for key, group in itertools.groupby(story, lambda s: s[0] == "power")]
    for number, scene in enumerate(scenes):
        if scene[0][0] == "power":
            continue
        root = scratch / f"era{number}"
        plant(tree, root)
        tape = Tape(str(root), streams=1000 * number)
        with on(tape):
            era = Era(tape, durability, names)
            for step in scene:
                era.take(step)
        tape.bury()
        yield tree, deepcopy(books), tape.steps
        seed = scenes[number + 1][0][1] if number + 1 < len(scenes) else 0
        disk = Disk(tree)
        for taken in tape.steps:
            follow(disk, books, taken)
        tree = disk.after(chance(seed))


def follow(disk: Disk, books: Books, step: Step) -> None:
    if step.call == "mark":
        books.note(*step.mark)
    else:
        disk.take(step)


def survive(
    story: Story, fates: tuple[Fate, ...], durability: str = "fsync", chances: int = 0
) -> int:
    """Let the power fail at every moment of a story; return how many different ends it had."""
    seen: set[int] = set()
    with TemporaryDirectory(dir=_PLACE) as directory, silent():
        scratch = Path(directory)
        for tree, books, taken in play(story, durability, scratch):
            disk = Disk(tree)
            for number, step in enumerate(taken):
                follow(disk, books, step)
                for fate in (*fates, *map(chance, range(number, number + chances))):
                    left = disk.after(fate)
                    stored = sum(map(len, books.stored.values()))
                    end = hash((frozenset(left.items()), len(books.accepted), stored, fate is KEPT))
                    if end in seen:
                        continue
                    seen.add(end)
                    try:
                        recover(left, books, scratch / f"end{len(seen)}", fate)
                    except (AssertionError, DiskError) as exc:
                        before = taken[max(0, number - 8) : number + 1]
                        raise Loss(
                            f"{exc}\nafter step {number}, {fate.name}; the last steps were\n"
                            + "\n".join(map(str, before))
                        ) from exc
    return len(seen)


@contextmanager
def silent() -> Iterator[None]:
    """Spare thousands of lines about recovered journals."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def recover(left: Tree, books: Books, root: Path, fate: Fate) -> None:
    """Start again with what is left; all that was accepted must be there, once."""
    plant(left, root)
    tape = Tape(str(root), streams=10**6)
    # no owner lives that may not know yet that its lock is gone
    with on(tape), patch.object(recovery, "LEASE_SECONDS", -1):
        life = Life(tape, "fsync")
        life.start()
        life.recover()
        assert not life.admission.errors, life.admission.errors
        batches = life.in_dlq()
    assert not list(root.rglob("*.journal")), "a journal was left behind"
    lines = {key: dict(stored) for key, stored in books.stored.items()}
    for batch in batches:
        there = lines.setdefault(batch.key, {})
        for identifier, line in lines_of(batch.payload).items():
            assert there.setdefault(identifier, line) == line, "one id for two events"
    whole = [line + b"\n" for of_key in lines.values() for line in of_key.values()]
    found = parse_lines(b"".join(whole))
    undecided = books.submitted - set(books.accepted)
    if fate is KEPT:
        undecided -= books.refused - books.in_doubt
    if found or books.accepted:
        accounting.check(books.accepted, found, unanswered=undecided)
    shutil.rmtree(root)


# --- the promise


@pytest.mark.parametrize("name", NAMED)
def test_a_power_failure_at_any_moment_loses_and_doubles_nothing_that_was_accepted(
    name: str,
) -> None:
    assert survive(NAMED[name], (*EXTREMES, KEPT), chances=2) > 50


@settings(max_examples=examples(40))
@given(stories)
def test_no_story_of_requests_faults_kills_and_power_failures_loses_or_doubles_anything(
    story: Story,
) -> None:
    assert survive(story, (*EXTREMES, KEPT), chances=1)


@pytest.mark.parametrize("name", [name for name in NAMED if name != "two power failures"])
def test_with_journal_a_kill_at_any_moment_loses_and_doubles_nothing(name: str) -> None:
    assert survive(NAMED[name], (KEPT,), "journal") > 15


# --- two faults: the first leaves something that the next life, or the next attempt, must not
# --- take for durable

BEFORE: dict[str, Story] = {
    "start": [],
    "first append": [("recover",)],
    "write to the DLQ": [("send", 1), ("seal",)],
    "move in the DLQ": [("send", 1), ("seal",), ("spill",)],
    "recovery": [("send", 1), ("kill", 0)],
}
THEN: dict[str, Story] = {
    "start": [("send", 1)],
    "first append": [("send", 1)],
    "write to the DLQ": [("spill",)],
    "move in the DLQ": [("defer",)],
    "recovery": [("recover",)],
}
_WORST = tuple(fate for fate in EXTREMES if fate.name in {"nothing is kept", "removals alone"})


@pytest.mark.parametrize("during", BEFORE)
def test_what_a_killed_process_did_not_sync_is_synced_before_anything_relies_on_it(
    during: str,
) -> None:
    for number in range(12):
        story = [*BEFORE[during], ("kill", number), *THEN[during], *THEN[during], ("recover",)]
        assert survive(story, _WORST)


@pytest.mark.parametrize("during", BEFORE)
def test_a_sync_that_failed_is_made_up_for_before_anything_relies_on_it(during: str) -> None:
    for number in range(6):
        story = [
            *BEFORE[during],
            ("fault", "fsync", number),
            *THEN[during],
            *THEN[during],
            ("recover",),
        ]
        assert survive(story, _WORST)


# --- the model can tell: without one of the syncs, something is lost


def no_fdatasync() -> AbstractContextManager[object]:
    return patch.object(Tape, "fdatasync", lambda *_: None)


def no_fsync_of_files() -> AbstractContextManager[object]:
    return patch.object(Tape, "fsync", lambda *_: None)


def no_sync_of(pattern: str) -> AbstractContextManager[object]:
    real = files.sync_directory

    def sync(path: str) -> None:
        if not re.search(pattern, path):
            real(path)

    return patch.object(files, "sync_directory", sync)


def numbers_used_again() -> AbstractContextManager[object]:
    return patch.object(journal.Journals, "trusted", lambda *_: True)


def no_cut() -> AbstractContextManager[object]:
    return patch.object(Tape, "ftruncate", lambda *_: None)


@pytest.mark.parametrize(
    ("fault", "story"),
    [
        (no_fdatasync, "stored and stopped"),
        (no_fsync_of_files, "written to the DLQ"),
        (lambda: no_sync_of("/journal/[0-9a-f]{28}$"), "stored and stopped"),
        (lambda: no_sync_of("/journal$"), "stored and stopped"),
        (lambda: no_sync_of("/dlq$"), "stored and stopped"),
        (lambda: no_sync_of("/var$"), "stored and stopped"),
        (lambda: no_sync_of("/pending/[^/]*$"), "written to the DLQ"),
        (lambda: no_sync_of("/pending$"), "written to the DLQ"),
        (numbers_used_again, "a sync that failed"),
        (no_cut, "a sync that failed"),
        (lambda: patch.object(DeadLetterQueue, "write", lambda *_, **__: 0), "killed and adopted"),
    ],
)
def test_the_model_finds_what_one_step_less_would_cost(
    fault: Callable[[], AbstractContextManager[object]], story: str
) -> None:
    with fault(), pytest.raises(Loss):
        survive(NAMED[story], (*EXTREMES, KEPT))


def test_the_model_finds_that_journal_does_not_survive_a_power_failure() -> None:
    with pytest.raises(Loss):
        survive(NAMED["stored and stopped"], EXTREMES, "journal")
