"""The tables of docs/scaling.md. ``python -m bench.plan_page docs/scaling.md`` writes them anew."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from bench.plan import (
    ASSUMED,
    GB,
    LEAST_TASKS,
    MB,
    MEASURED,
    NDJSON,
    PLAIN,
    PRICES,
    SETTINGS,
    TASKS,
    Clients,
    Task,
    bill,
    events_per_second,
    memory_bytes,
    object_seconds,
    outage_hours,
    tasks_needed,
)
from bench.plan_simulation import growth, outage, puts_at_least
from bench.report import table

_RATES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_BILLED = Task(1, 2)
_HOUR = 3600
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)


def _carries() -> str:
    rows = [
        [
            f"{task.vcpu:g} vCPU", str(task.workers),
            f"{events_per_second(task, PLAIN, 1.0):,.0f}", f"{events_per_second(task, PLAIN):,.0f}",
            f"{events_per_second(task, NDJSON):,.0f}", f"{memory_bytes(task) / MB:,.0f} MB",
            f"{task.memory_gb:g} GB",
        ]
        for task in TASKS
    ]  # fmt: skip
    planned = f"at {ASSUMED.cpu_share:.0%}"
    titles = (
        "task", "workers", "one event a request, at 100%", planned, f"NDJSON of 100, {planned}",
        "memory at most", "Fargate's least",
    )  # fmt: skip
    return table(titles, rows)


def _needed(clients: Clients) -> str:
    rows = [
        [f"{rate:,}", *(f"{tasks_needed(rate, task, clients):,}" for task in TASKS)]
        for rate in _RATES
    ]
    return table(("events/s", *(f"{task.vcpu:g} vCPU" for task in TASKS)), rows, texts=0)


def _objects() -> str:
    rows = [
        [
            f"{rate:,}", f"{object_seconds(rate):,.1f} s", f"{86_400 / object_seconds(rate):,.0f}",
            f"{object_seconds(rate) * rate * MEASURED.stored_bytes / MB:,.3f} MB",
        ]
        for rate in (1, 10, 100, 1_000, 3_000, 10_000)
    ]  # fmt: skip
    titles = ("events/s of a worker", "an object each", "objects a day", "size of one")
    return table(titles, rows, texts=0)


def _costs(clients: Clients) -> str:
    rows = []
    for rate in _RATES:
        found = bill(rate, _BILLED, clients)
        dollars = (found.fargate, found.balancer, found.puts, found.stored, found.total)
        rows.append([f"{rate:,}", str(found.tasks), *(f"${part:,.0f}" for part in dollars)])
    titles = ("events/s", "tasks", "Fargate", "ALB", "PUTs", "storage", "together")
    return table(titles, rows, texts=0)


def _endurance() -> str:
    rows = [
        [
            f"{rate:,}", f"{rate * MEASURED.stored_bytes * _HOUR / MB:,.0f} MB",
            f"{outage_hours(rate):,.0f} h",
            f"{outage_hours(rate, 4 * MEASURED.stored_bytes):,.0f} h",
        ]
        for rate in (100, 1_000, 3_000, 10_000, 25_000)
    ]  # fmt: skip
    titles = ("events/s of a task", "DLQ an hour", "DLQ full after", "at four times the bytes")
    return table(titles, rows, texts=0)


def _outages() -> str:
    rows = []
    for rate, tasks in (
        (1_000, 2), (10_000, 2), (100_000, 8), (1_000_000, 74), (100_000, 1_000),
        (1_000_000, 1_000), (3_000_000, 3_000),
    ):  # fmt: skip
        found = outage(rate, tasks, _HOUR)
        row = [
            f"{rate:,}", f"{tasks:,}", f"{found.files:,.0f}", f"{found.task_bytes / GB:.2f} GB",
            f"{found.puts_per_second:,.0f}", f"{found.drained_seconds / 60:.1f} min",
        ]  # fmt: skip
        rows.append(row)
    titles = ("events/s", "tasks", "files", "DLQ of each task", "PUT/s then", "empty after")
    return table(titles, rows, texts=0)


def _puts() -> str:
    limit = ASSUMED.puts_per_prefix
    rows = [
        [
            f"{streams:,}", f"{puts_at_least(streams):,.1f}",
            f"{puts_at_least(streams) / limit:.1%}", f"{streams:,}",
            f"{limit * SETTINGS.batch_size / streams:,.0f}",
        ]
        for streams in (10, 100, 1_000, 10_000)
    ]  # fmt: skip
    titles = (
        "workers", "PUT/s with hardly an event", "of the limit", "PUTs as an hour begins",
        "events/s of each at the limit",
    )  # fmt: skip
    return table(titles, rows, texts=0)


def _growths() -> str:
    rows = []
    for factor in (1.6, 2, 3, 5):
        for minutes in (0, 10, 30):
            found = growth(factor, 60 * minutes)
            rows.append(
                [
                    f"{factor:g} times", f"over {minutes} min" if minutes else "at once",
                    f"{found.over_seconds / 60:.1f} min", f"{found.over:.2%}",
                    f"{found.settled_minutes:.0f} min",
                ]
            )  # fmt: skip
    titles = ("load", "grows", "more than fits", "of the hour's events", "settled after")
    return table(titles, rows, texts=2)


def _figures() -> str:
    a, p = ASSUMED, PRICES
    rows = [
        ["CPU of an event that is a request", f"{MEASURED.plain_us} µs", "performance"],
        ["CPU of an event in NDJSON of 100", f"{MEASURED.ndjson_us} µs", "performance"],
        ["the same with two workers", f"{MEASURED.two_workers} times", "performance"],
        ["an event as sent", f"{MEASURED.event_bytes} bytes", "performance"],
        ["its line in a batch", f"{MEASURED.line_bytes} bytes", "performance"],
        ["stored, compressed", f"{MEASURED.stored_bytes} bytes", "performance, under Memory"],
        ["an idle worker with S3", f"{MEASURED.worker_bytes / MB:.0f} MB", "tuning"],
        ["the arbiter", f"{MEASURED.arbiter_bytes / MB:.0f} MB", "tuning"],
        ["planned CPU", f"{a.cpu_share:.0%}", "assumed"],
        ["tasks at least", f"{LEAST_TASKS}", "assumed"],
        ["head and answer of a request", f"{a.overhead_bytes} bytes", "assumed"],
        ["requests of a connection", f"{a.requests_per_connection}", "assumed"],
        ["a PUT to S3; the look before a replay",
         f"{a.put_seconds * 1000:.0f} ms; {a.look_seconds * 1000:.0f} ms", "assumed"],
        ["an open breaker notices S3's return after", f"{a.probe_seconds} s", "pipeline, at most"],
        ["PUTs a second that S3 takes for a prefix", f"{a.puts_per_prefix:,}", "AWS"],
        ["scaling: minutes above target; start of a task; pause",
         f"{a.alarm_minutes}; {a.start_seconds} s; {a.cooldown_seconds} s", "assumed"],
        ["1,000 PUTs", f"${1000 * p.put:g}", "list price"],
        ["a GB stored for a month", f"${p.stored_gb_month:g}", "list price"],
        ["a vCPU hour; a GB hour on Fargate", f"${p.vcpu_hour:g}; ${p.memory_gb_hour:g}",
         "list price"],
        ["an ALB hour; an LCU hour", f"${p.balancer_hour:g}; ${p.lcu_hour:g}", "list price"],
    ]  # fmt: skip
    return table(("figure", "value", "from"), rows, texts=3)


TABLES: dict[str, Callable[[], str]] = {
    "carries": _carries,
    "needed_plain": lambda: _needed(PLAIN),
    "needed_ndjson": lambda: _needed(NDJSON),
    "objects": _objects,
    "costs_plain": lambda: _costs(PLAIN),
    "costs_ndjson": lambda: _costs(NDJSON),
    "puts": _puts,
    "endurance": _endurance,
    "outages": _outages,
    "growths": _growths,
    "figures": _figures,
}


def with_tables(page: str) -> str:
    """Return the page with its tables as the model has them now."""
    return _TABLE.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], page)


def names(page: str) -> list[str]:
    """Return the names of the tables that a page has a place for."""
    return [found[2] for found in _TABLE.finditer(page)]


if __name__ == "__main__":
    (path,) = map(Path, sys.argv[1:])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
