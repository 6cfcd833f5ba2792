"""A row is read and changed whole, by whatever process, also after its writer was killed."""

import os
from collections.abc import Callable

import pytest

from estat.accounting.shared_memory import DRAINING, SERVING, Row, SharedPage
from tests.unit.mortal_row import Cells, Killed

# a child only writes to the page, so it does not matter which threads it lacks
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

A, B = 1, 2


@pytest.fixture
def page() -> SharedPage:
    return SharedPage(columns=3)


def in_child(work: Callable[[], object]) -> None:
    """Run work in a forked process, as a worker is."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def killed_after(row: Row, writes: int, changes: dict[int, int]) -> None:
    """Have a writer die in the middle of a change; its row is what it had written by then."""
    cells = Cells(row.cells.tolist())
    cells.writes_left = writes
    shared, row.cells = row.cells, cells  # type: ignore[assignment]  # as good as memory
    with pytest.raises(Killed):
        row.change(changes)
    row.cells = shared
    for index, value in enumerate(list(cells)):
        shared[index] = value


def test_what_one_process_writes_another_one_reads(page: SharedPage) -> None:
    in_child(lambda: page.rows[4].change({A: 5, B: -3}))
    in_child(lambda: page.rows[4].change({A: 1}))
    assert [row.read()[A : B + 1] for row in page.used_rows()] == [[6, -3]]


def test_all_processes_see_the_state_that_one_has_set(page: SharedPage) -> None:
    assert page.state == SERVING

    def drain() -> None:
        page.state = DRAINING

    in_child(drain)
    assert page.state == DRAINING


def test_only_rows_that_were_written_to_are_used(page: SharedPage) -> None:
    assert page.used_rows() == []
    page.rows[7].change({})
    assert page.used_rows() == [page.rows[7]]


def test_a_change_that_a_kill_cuts_short_is_read_whole_and_completed(page: SharedPage) -> None:
    row = page.rows[1]
    row.change({A: 10, B: 20})
    # the sequence, place and value of each cell, how many: from here on it happens
    killed_after(row, 1 + 4 + 1, {A: 1, B: -1})
    assert row.read()[A : B + 1] == [11, 19]
    assert row.cells.tolist()[A : B + 1] == [10, 20], "reading changes nothing"
    row.heal()
    assert row.cells.tolist()[A : B + 1] == [11, 19]
    row.change({A: 1})
    assert row.read()[A] == 12


def test_a_change_that_was_not_written_down_whole_is_forgotten(page: SharedPage) -> None:
    row = page.rows[1]
    row.change({A: 10, B: 20})
    killed_after(row, 1 + 4, {A: 1, B: -1})
    assert row.read()[A : B + 1] == [10, 20]
    row.heal()
    row.change({B: 1})
    assert row.read()[A : B + 1] == [10, 21]
