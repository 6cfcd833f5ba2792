"""What a fleet of tasks carries, needs and costs: docs/scaling.md in formulas.

``MEASURED`` repeats figures of docs/performance.md and docs/tuning.md, and a test holds that
they agree; ``ASSUMED`` and ``PRICES`` were not measured, and the page says so. No clock, no
I/O: ``plan_simulation`` has what develops over time, ``plan_page`` the tables.
"""

import math
from typing import NamedTuple

from bench import ceiling
from estat import config

MB, GB = 1e6, 1e9
MONTH_HOURS = 730
MONTH_SECONDS = MONTH_HOURS * 3600


class Measured(NamedTuple):
    """Figures of docs/performance.md and docs/tuning.md."""

    plain_us: float = 43.9  # CPU of an event that is a request, with `journal`
    ndjson_us: float = 5.6  # CPU of an event in NDJSON of 100
    two_workers: float = 1.04  # CPU of an event with two workers, beside one
    event_bytes: int = 321  # JSON as sent
    line_bytes: int = 527  # as in a batch
    stored_bytes: float = 45.9  # compressed
    worker_bytes: float = 63 * MB  # idle, with S3
    arbiter_bytes: float = 40 * MB


class Assumed(NamedTuple):
    """What depends on clients, on S3 and on AWS."""

    cpu_share: float = 0.60  # planned use of a task's CPU
    overhead_bytes: int = 700  # of a request: head, answer, TLS records
    requests_per_connection: int = 10
    put_seconds: float = 0.10
    look_seconds: float = 0.05  # the HEAD before a replay
    puts_per_prefix: int = 3500  # S3, a second
    probe_seconds: int = 30  # until an open breaker notices that S3 is back, at most
    alarm_minutes: int = 3  # above the target, before the service grows
    start_seconds: int = 60  # from the decision to a task that takes requests
    cooldown_seconds: int = 60  # from one decision to the next
    request_bytes: int = 64 * 1024  # the largest request, for the memory
    requests: int = 20  # being read at a time, for the memory


class Prices(NamedTuple):
    """AWS's list prices in us-east-1, in US dollars, as of early 2025."""

    put: float = 0.005 / 1000
    stored_gb_month: float = 0.023  # S3 Standard, the first 50 TB
    vcpu_hour: float = 0.04048  # Fargate, Linux, x86
    memory_gb_hour: float = 0.004445
    balancer_hour: float = 0.0225
    lcu_hour: float = 0.008


class Clients(NamedTuple):
    """How events come."""

    name: str
    events_per_request: int
    cpu_us: float


class Task(NamedTuple):
    """A size of Fargate, with the least memory that it offers for so many vCPU."""

    vcpu: float
    memory_gb: float

    @property
    def workers(self) -> int:
        """WEB_CONCURRENCY: one for each vCPU."""
        return max(1, math.ceil(self.vcpu))


MEASURED, ASSUMED, PRICES = Measured(), Assumed(), Prices()
SETTINGS = config.load({"RAW_BUCKET": "plan"}, env_file="")  # the defaults

PLAIN = Clients("one event a request", 1, MEASURED.plain_us)
NDJSON = Clients("NDJSON of 100", 100, MEASURED.ndjson_us)
TASKS = (Task(0.25, 0.5), Task(0.5, 1), Task(1, 2), Task(2, 4))

#: A task less than this is no deployment: one must be able to go.
LEAST_TASKS = 2


def events_per_second(task: Task, clients: Clients, share: float = ASSUMED.cpu_share) -> float:
    """Return what a task takes with ``share`` of its CPU."""
    cpu_us = clients.cpu_us * (MEASURED.two_workers if task.workers > 1 else 1)
    return share * task.vcpu * 1e6 / cpu_us


def memory_bytes(task: Task) -> float:
    """Return the upper bound of docs/tuning.md for a task, with a quarter as margin."""
    worker = ceiling.worker_bytes(
        SETTINGS, MEASURED.worker_bytes, SETTINGS.batch_size * MEASURED.stored_bytes,
        ASSUMED.requests, ASSUMED.request_bytes,
    )  # fmt: skip
    return 1.25 * (task.workers * worker + MEASURED.arbiter_bytes)


def tasks_needed(rate: float, task: Task, clients: Clients) -> int:
    """Return how many tasks carry ``rate`` events a second."""
    return max(LEAST_TASKS, math.ceil(rate / events_per_second(task, clients)))


def object_seconds(rate: float) -> float:
    """Return how often a stream of ``rate`` events a second makes an object."""
    return min(
        SETTINGS.flush_interval,
        SETTINGS.batch_size / rate,
        SETTINGS.batch_bytes / (rate * MEASURED.line_bytes),
    )


def objects_per_second(rate: float, streams: int) -> float:
    """Return the objects of ``streams`` workers; one more an hour each, as the hour ends."""
    return streams * (1 / object_seconds(rate / streams) + 1 / 3600)


class Bill(NamedTuple):
    """A month, in dollars."""

    tasks: int
    objects: float  # in that month
    fargate: float
    puts: float
    stored: float  # of one month's events, for each month that they are kept
    balancer: float

    @property
    def total(self) -> float:
        """All of it, with one month of events kept."""
        return self.fargate + self.puts + self.stored + self.balancer


def bill(rate: float, task: Task, clients: Clients) -> Bill:
    """Return what a month at ``rate`` events a second costs."""
    count = tasks_needed(rate, task, clients)
    objects = MONTH_SECONDS * objects_per_second(rate, count * task.workers)
    hourly = task.vcpu * PRICES.vcpu_hour + task.memory_gb * PRICES.memory_gb_hour
    return Bill(
        tasks=count,
        objects=objects,
        fargate=count * MONTH_HOURS * hourly,
        puts=objects * PRICES.put,
        stored=rate * MONTH_SECONDS * MEASURED.stored_bytes / GB * PRICES.stored_gb_month,
        balancer=MONTH_HOURS * (PRICES.balancer_hour + PRICES.lcu_hour * lcus(rate, clients)),
    )


def lcus(rate: float, clients: Clients) -> float:
    """Return the units of an ALB: the dearer one of new connections and bytes counts."""
    requests = rate / clients.events_per_request
    connections = requests / ASSUMED.requests_per_connection
    hourly_bytes = 3600 * (rate * MEASURED.event_bytes + requests * ASSUMED.overhead_bytes)
    return max(connections / 25, hourly_bytes / GB)


def outage_hours(rate: float, stored_bytes: float = MEASURED.stored_bytes) -> float:
    """Return how long DLQ_MAX_SIZE_BYTES lasts a task that takes ``rate`` events a second."""
    return SETTINGS.dlq_max_size_bytes / (rate * stored_bytes) / 3600
