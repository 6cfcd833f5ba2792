"""How a server's marker of an hour goes on."""

import pytest

from estat.events import closed_hour
from estat.events.closed_hour import CLOSED, DROPPED, OPEN, OPENED, STOPPED, STORED, Marker, Note
from estat.events.spans import Span
from tests.unit.batches import STREAM, batch

BLANK = Marker("ab" * 14, "dt=2025-11-13/hr=07", "UTC")


def note(first, last, fate=STORED):
    return Note("events", batch().key, first, last, fate)


def after(*steps, marker=BLANK):
    """Let a server write what it has to say, step by step; None where it has nothing to say."""
    for now, (notes, state) in enumerate(steps, start=1):
        marker = marker and marker.then(notes, state, "me", now)
    return marker


def test_it_is_opened_once_and_closed_with_the_ids_of_all_notes():
    opened = after(([note(1, 0, OPENED)], OPEN))
    assert (opened.state, opened.revision, opened.streams) == (OPEN, 0, {STREAM: []})
    assert after(([note(1, 9)], OPEN), marker=opened) is None
    closed = after(([note(1, 9), note(20, 29), note(10, 19, DROPPED)], CLOSED), marker=opened)
    assert (closed.state, closed.revision) == (CLOSED, 1)
    assert closed.streams == {STREAM: [Span(1, 29)]}
    assert closed.elsewhere == {DROPPED: {STREAM: [Span(10, 19)]}}


def test_one_that_grows_again_is_open_and_then_has_a_higher_revision():
    closed = after(([note(1, 9)], CLOSED))
    again = after(([note(10, 9, OPENED)], OPEN), marker=closed)
    assert (again.state, again.revision) == (OPEN, 1)
    assert after(([note(10, 12)], CLOSED), marker=again).revision == 2
    assert after(([note(10, 12)], CLOSED), marker=closed).revision == 2


def test_what_was_written_and_got_no_answer_is_not_written_again():
    assert after(([note(1, 9)], CLOSED), ([note(1, 9)], CLOSED)) is None
    assert after(([note(1, 9)], STOPPED), ([note(1, 9)], STOPPED)) is None


@pytest.mark.parametrize(("state", "revision"), [(OPEN, 0), (CLOSED, 2)])
def test_who_has_lost_the_hour_adds_ids_and_leaves_its_state(state, revision):
    there = after(([note(1, 9)], state))
    added = after(([note(10, 12)], ""), marker=there)
    assert (added.state, added.revision) == (state, revision)
    assert added.streams == {STREAM: [Span(1, 12)]}


def test_it_is_read_as_it_was_written():
    marker = after(([note(1, 9), note(10, 12, DROPPED)], CLOSED))
    assert closed_hour.unpack(marker.pack()) == marker
