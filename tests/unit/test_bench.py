"""The rules of the benchmark: when requests are due, what a percentile is, what is met."""

import itertools
import json

import pytest

from bench import driver, latency, loop, memory
from bench.driver import Schedule
from bench.report import Target
from estat.config import loading
from estat.events import stored_line


def test_an_open_loop_has_all_requests_that_are_due_before_the_end():
    schedule = Schedule(100.0, rate=3.0, seconds=2.0)
    assert schedule.requests == 6
    assert schedule.due(0) == 100.0
    assert schedule.due(schedule.requests - 1) < 102.0 <= schedule.due(schedule.requests)


def test_a_part_of_a_request_at_the_end_is_a_request():
    assert Schedule(0.0, rate=2.5, seconds=1.0).requests == 3


def test_requests_are_due_evenly_however_many_there_are():
    schedule = Schedule(1e6, rate=12_345.678, seconds=3600.0)
    last = schedule.requests - 1
    distances = [b - a for a, b in itertools.pairwise(map(schedule.due, range(last - 9, last)))]
    assert distances == pytest.approx([1 / 12_345.678] * 8, rel=1e-4)
    assert schedule.due(last) == pytest.approx(1e6 + 3600.0, abs=1e-3)


@pytest.mark.parametrize(
    ("percent", "rank"), [(0, 1), (0.1, 1), (50, 500), (99, 990), (99.9, 999), (100, 1000)]
)
def test_a_percentile_is_the_nearest_rank(percent, rank):
    assert driver.percentile(range(1, 1001), percent) == rank


@pytest.mark.parametrize("percent", [0, 50, 99.99, 100])
def test_a_single_value_is_every_percentile(percent):
    assert driver.percentile([7.0], percent) == 7.0


def test_the_grid_goes_up_to_so_many_nines():
    grid = driver.grid(4)
    assert grid[0] == 0
    assert grid[20] == pytest.approx(90)
    assert grid[-1] == pytest.approx(99.99)
    assert grid == sorted(grid)


@pytest.mark.parametrize(("p50_ms", "allowed"), [(0.3, 10.0), (2.0, 10.0), (3.0, 15.0)])
def test_the_99th_percentile_may_be_the_larger_of_two_bounds(p50_ms, allowed):
    assert latency.allowed_ms(p50_ms) == allowed


def test_a_target_is_met_up_to_its_bound():
    bound = Target("it", 1.5)
    assert bound.met(1.5)
    assert not bound.met(1.51)
    assert bound.line("one", 1.2) == "- Target: it at most 1.5. one: 1.20, met"
    assert bound.line("two", 1.7) == "- Target: it at most 1.5. two: 1.70, **not met**"


def test_a_figure_just_above_its_bound_does_not_read_as_if_it_were_within():
    assert "one: 1.5004, **not met**" in Target("it", 1.5).line("one", 1.50042)


def test_the_ceiling_is_the_example_of_the_tuning_page():
    settings = loading.load({"RAW_BUCKET": "bench"}, env_file="")
    found = memory.ceiling(settings, 63e6, 2 * 2**20, requests=20, body=2**16)
    assert found / 1e6 == pytest.approx(198, abs=2)


def test_the_plain_loop_makes_the_records_that_are_stored():
    bodies = [b'{"path":"/a","caf\xc3\xa9":[1,null,2.5]}', b'{"path":"/b"}']
    content = loop.Content("192.0.2.7", 'Voyager "x"', b"\n".join(bodies))
    origin = stored_line.origin(content.address, content.agent)
    rests = [
        b"%b%b}\n" % (origin, stored_line.encode(stored_line.parse(body.decode())))
        for body in bodies
    ]
    stored = stored_line.stamped("s", 41, 1763800000.125, rests)
    assert loop.records(content, "s", 41, 1763800000.125) == stored
    assert json.loads(stored[0])["id"] == "s-41"
