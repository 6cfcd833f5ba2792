"""The plan for growth: its page is the model's, its figures are those that were measured."""

import re

import pytest

from bench import plan, plan_page, plan_simulation
from bench.plan import ASSUMED, MEASURED, NDJSON, PLAIN, SETTINGS, TASKS
from estat import config
from tests.support.page import rows, sections
from tests.support.server import ROOT

PAGE = (ROOT / "docs" / "scaling.md").read_text()
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
#: The rows of all tables; of those with the same name the first.
LAST_RUN = {row[0]: row[1:] for row in reversed(rows(sections("docs/performance.md")["Last run"]))}
TUNING = (ROOT / "docs" / "tuning.md").read_text()


def median(cell):
    return float(cell.split(" ")[0].replace(",", ""))


def figure(pattern, text):
    found = re.search(pattern, text)
    assert found, pattern
    return float(found[1].replace(",", ""))


def test_the_tables_of_the_page_are_the_models():
    assert plan_page.with_tables(PAGE) == PAGE, "run: make docs"


def test_the_page_has_each_table_once():
    assert sorted(plan_page.names(PAGE)) == sorted(plan_page.TABLES)


def test_the_measured_figures_are_those_of_the_performance_page():
    assert median(LAST_RUN["estat, DURABILITY=journal"][1]) == MEASURED.plain_us
    assert round(median(LAST_RUN["estat, NDJSON of 100"][1]), 1) == MEASURED.ndjson_us
    assert median(LAST_RUN["WEB_CONCURRENCY=2"][2]) == MEASURED.two_workers
    assert figure(r"access log, (\d+)\s+bytes of JSON", PERFORMANCE) == MEASURED.event_bytes
    assert figure(r"stored record \((\d+) bytes\)", PERFORMANCE) == MEASURED.line_bytes


def test_an_events_compressed_size_is_what_ten_minutes_of_a_hanging_store_left_in_the_dlq():
    accepted, dlq_mb = LAST_RUN["600"][2], LAST_RUN["600"][6]
    stored = median(dlq_mb) * 1e6 / median(accepted)
    assert round(stored, 1) == MEASURED.stored_bytes


def test_the_memory_figures_are_those_of_the_tuning_page():
    assert figure(r"(\d+) MB with S3", TUNING) * plan.MB == MEASURED.worker_bytes
    assert figure(r"plus about (\d+) MB for the arbiter", TUNING) * plan.MB == (
        MEASURED.arbiter_bytes
    )


def test_the_model_is_of_the_default_settings():
    assert config.load({"RAW_BUCKET": "plan"}, env_file="") == SETTINGS


@pytest.mark.parametrize("kind", ["refused", "hang", "503"])
def test_the_model_leaves_as_many_files_as_a_measured_outage(kind):
    _, during, *_, files, _, _, _ = LAST_RUN[kind]
    rate, seconds = median(during), 15
    left = plan_simulation.outage(rate, 1, seconds).files
    of_outage = left * seconds / (seconds + ASSUMED.probe_seconds)
    assert of_outage == pytest.approx(median(files), abs=1)


@pytest.mark.parametrize("clients", [PLAIN, NDJSON], ids=lambda clients: clients.name)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.vcpu:g}")
def test_the_tasks_of_a_rate_carry_it_and_one_less_would_not(task, clients):
    each = plan.events_per_second(task, clients)
    for rate in (1_000, 100_000, 1_000_000):
        count = plan.tasks_needed(rate, task, clients)
        assert count * each >= rate
        assert (count - 1) * each < rate or count == plan.LEAST_TASKS


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.vcpu:g}")
def test_a_tasks_memory_is_within_what_fargate_gives_it(task):
    assert plan.memory_bytes(task) <= task.memory_gb * plan.GB


def test_an_object_ends_by_age_by_count_or_by_bytes():
    lines = SETTINGS.batch_bytes / MEASURED.line_bytes
    assert lines > SETTINGS.batch_size  # else bytes would end it before the count does
    assert plan.object_seconds(1) == SETTINGS.flush_interval
    assert plan.object_seconds(1_000) == SETTINGS.batch_size / 1_000


def test_a_jump_within_the_free_share_is_carried_and_one_beyond_it_is_not():
    free = 1 / ASSUMED.cpu_share
    assert plan_simulation.growth(0.99 * free, 0).over == 0
    assert plan_simulation.growth(1.01 * free, 0).over > 0


def test_a_service_that_has_grown_stays_at_its_planned_share():
    for factor in (1.6, 2, 3, 5):
        assert plan_simulation.growth(factor, 600).settled_minutes < 20


def test_a_fleet_replays_no_faster_than_s3_takes():
    for tasks in (1_000, 3_000):
        found = plan_simulation.outage(1_000.0 * tasks, tasks, 3600)
        assert found.puts_per_second <= ASSUMED.puts_per_prefix
        assert found.drained_seconds > ASSUMED.probe_seconds


def test_the_numbers_in_the_text_are_the_models():
    share = 1 / ASSUMED.cpu_share
    full = ASSUMED.puts_per_prefix * SETTINGS.batch_size
    for said in (
        f"Up to {share:.2f} times the load",
        f"{full / 1e6:.1f} million events a second",
        f"S3 takes {ASSUMED.puts_per_prefix:,} PUTs a second",
        f"{100 * 86_400 / SETTINGS.flush_interval:,.0f} objects a day",
    ):
        assert said in " ".join(PAGE.split())


def test_the_service_that_grows_is_scaled_as_the_template_scales_it():
    template = (ROOT / "conf/ecs/estat.yaml").read_text()
    assert figure(r"TargetValue: (\d+)", template) == 100 * ASSUMED.cpu_share
    assert figure(r"ScaleOutCooldown: (\d+)", template) == ASSUMED.cooldown_seconds
