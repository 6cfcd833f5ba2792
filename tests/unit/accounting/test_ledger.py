"""The accounting closes after every move, and shows what died."""

import contextlib
import itertools

import pytest

from estat.accounting import exposition, ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import Row
from tests.unit.mortal_row import Cells, Killed


@pytest.fixture
def page():
    return metrics.page()


def books(page, slot):
    return Ledger(Metrics(page.rows[slot]))


def test_every_move_keeps_the_accounting_closed(page):
    one, two = books(page, 1), books(page, 2)
    steps = [
        lambda: one.accept(100),
        lambda: one.store(40),
        lambda: one.spill(60, 5000),
        lambda: two.replay(30, 2500),
        lambda: two.drop(20, 2000, "overflow"),
        lambda: two.hand_over(4, 200),
        lambda: one.adopt(7, 1, 300),
        lambda: two.drop(7, 300, "unreadable"),
    ]
    for step in steps:
        step()
        assert ledger.terms(page).lost == 0
    assert ledger.terms(page) == ledger.Terms(
        accepted=100,
        adopted=7,
        stored=70,
        pending=0,
        in_dlq=6,
        set_aside=0,
        handed_over=4,
        dropped=27,
    )


def test_a_move_that_a_kill_cuts_short_has_happened_whole_or_not_at_all(page):
    moved = set()
    for writes in itertools.count():
        cells = Cells(page.rows[1].cells.tolist())
        row = Row(cells)
        cells.writes_left = 100
        Ledger(Metrics(row)).accept(100)
        cells.writes_left = writes
        killed = False
        try:
            Ledger(Metrics(row)).spill(60, 5000)
        except Killed:
            killed = True
        cells.writes_left = 100
        seen = row.read()
        row.heal()
        terms = metrics.PENDING, metrics.DLQ_EVENTS, metrics.DLQ_BYTES
        found = tuple(seen[term] for term in terms)
        assert found in {(100, 0, 0), (40, 60, 5000)}
        assert found == tuple(cells[term] for term in terms)
        assert cells[0] % 2 == 0
        moved.add((killed, found[1]))
        if not killed:
            break
    assert moved == {(True, 0), (True, 60), (False, 60)}


def test_a_writer_that_died_in_a_move_leaves_orphans_that_close_the_books(page):
    for writes in range(20):
        row = Row(cells := Cells(page.rows[1].cells.tolist()))
        cells.writes_left = 100
        Ledger(Metrics(row)).accept(100)
        cells.writes_left = writes
        with contextlib.suppress(Killed):
            Ledger(Metrics(row)).store(60)
        cells.writes_left = 100
        orphans = Ledger(Metrics(row)).orphan()
        assert (cells[metrics.PENDING], cells[metrics.ORPHANED]) == (0, orphans)
        assert orphans + cells[metrics.STORED] == 100
        assert cells[0] % 2 == 0


def test_a_dead_workers_pending_events_show_as_lost_and_its_counters_stay(page):
    books(page, 1).accept(5)
    books(page, 1).store(2)
    metrics.forget_process(page.rows[1])
    terms = ledger.terms(page)
    assert (terms.accepted, terms.stored, terms.pending, terms.lost) == (5, 2, 0, 3)


def test_what_a_dead_worker_left_in_its_journals_keeps_the_accounting_closed_at_every_step(page):
    dead, leader = books(page, 1), books(page, 2)
    steps = [
        lambda: dead.accept(100),
        lambda: dead.store(30),
        dead.orphan,
        lambda: leader.recover(45, 4000, of_this_run=True),
        lambda: leader.recover(5, 200, of_this_run=True),
        lambda: leader.recover(8, 300, of_this_run=False),
        lambda: leader.replay(45, 4000),
    ]
    for step in steps:
        step()
        assert ledger.terms(page).lost == 0
    assert ledger.terms(page) == ledger.Terms(
        accepted=100,
        adopted=8,
        stored=75,
        pending=20,
        in_dlq=13,
        set_aside=0,
        handed_over=0,
        dropped=0,
    )


def test_events_that_are_set_aside_are_in_a_term_of_their_own_until_their_process_ends(page):
    books(page, 1).adopt(10, 2, 500)
    for leader in page.rows[1:3]:
        Ledger(Metrics(leader)).set_aside(4, "later_version")
        Ledger(Metrics(leader)).set_aside(3, "not_ours", in_journal=True)
        found = ledger.terms(page)
        assert (found.adopted, found.in_dlq, found.set_aside, found.lost) == (13, 6, 7, 0)
        metrics.forget_process(leader)
        found = ledger.terms(page)
        assert (found.adopted, found.in_dlq, found.set_aside, found.lost) == (10, 10, 0, 0)


def test_orphans_are_still_told_as_pending_when_their_worker_is_forgotten(page):
    books(page, 1).accept(5)
    books(page, 1).orphan()
    metrics.forget_process(page.rows[1])
    books(page, 2).accept(2)
    terms = ledger.terms(page)
    assert (terms.pending, terms.lost) == (7, 0)
    assert "events_pending 7.0" in exposition.render(page).decode()


def test_a_recovered_file_is_counted_as_any_other_in_the_dlq(page):
    books(page, 1).recover(5, 400, of_this_run=True)
    books(page, 1).recover(2, 100, of_this_run=False)
    text = exposition.render(page).decode()
    for name, value in (("events_enqueued_total", 7), ("files_current", 2), ("size_bytes", 500)):
        assert f"dlq_{name} {value}.0" in text


def test_orphans_of_which_nothing_is_left_stay_visible_as_lost(page):
    books(page, 1).accept(5)
    books(page, 1).orphan()
    books(page, 2).correct(0, 0, 0, orphans=3)
    terms = ledger.terms(page)
    assert (terms.pending, terms.adopted, terms.lost) == (2, 0, 3)


def test_a_journal_that_held_more_than_was_pending_is_adopted_and_no_loss(page):
    books(page, 1).accept(5)
    books(page, 1).orphan()
    books(page, 2).recover(9, 400, of_this_run=True)
    books(page, 2).correct(0, 0, 0, orphans=-4)
    terms = ledger.terms(page)
    assert (terms.pending, terms.adopted, terms.in_dlq, terms.lost) == (0, 4, 9, 0)


def test_what_was_counted_in_a_lost_directory_is_set_aside_and_stays_so(page):
    books(page, 1).accept(10)
    books(page, 1).spill(6, 100)
    books(page, 1).orphan()
    books(page, 0).lose(6, 1, 100, orphans=4)
    for slot in (0, 1):
        metrics.forget_process(page.rows[slot])
    terms = ledger.terms(page)
    assert (terms.pending, terms.in_dlq, terms.set_aside, terms.lost) == (0, 0, 10, 0)


def test_a_worker_that_left_nothing_pending_leaves_no_orphans(page):
    books(page, 1).accept(5)
    books(page, 1).store(5)
    books(page, 1).orphan()
    assert ledger.terms(page).pending == 0


def test_the_next_worker_in_a_slot_counts_on(page):
    books(page, 1).accept(5)
    metrics.forget_process(page.rows[1])
    books(page, 1).accept(1)
    assert ledger.terms(page).accepted == 6
