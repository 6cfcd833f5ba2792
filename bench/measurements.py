"""The table of measurements, in the order of the report."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

from bench import (
    durability,
    latency,
    memory,
    ndjson,
    outage,
    overhead,
    recovery,
    scan,
    start,
    workers,
)


class Measurement(NamedTuple):
    """One section of the report."""

    help: str
    #: Takes an empty directory and the command line's arguments, prints its report, and
    #: returns what can be drawn.
    run: Callable[[str, Namespace], Any]
    #: The method of ``charts.Charts`` that draws it.
    chart: str | None = None
    needs_wrk: bool = True


MEASUREMENTS = {
    "overhead": Measurement(
        "an event beside a bare Falcon resource, and beside a bare gevent echo",
        lambda directory, its: overhead.run(directory, its.rounds, its.seconds),
        chart="cost",
    ),
    "durability": Measurement(
        "an event under each DURABILITY",
        lambda directory, its: durability.run(directory, its.rounds, its.seconds),
    ),
    "ndjson": Measurement(
        "an event of an NDJSON batch beside a plain loop that parses, writes and compresses",
        lambda directory, its: ndjson.run(directory, its.rounds, its.seconds),
    ),
    "latency": Measurement(
        "the wait for an answer at half of the maximum rate, during uploads",
        lambda directory, its: latency.run(directory, its.rounds, its.seconds),
        chart="latency",
    ),
    "workers": Measurement(
        "an event with two workers beside one",
        lambda directory, its: workers.run(directory, its.rounds, its.seconds),
    ),
    "start": Measurement(
        "the start of gunicorn until the first event is accepted",
        lambda directory, its: start.run(directory, its.rounds),
        needs_wrk=False,
    ),
    "scan": Measurement(
        "a partial scan of the DLQ, by the number of files in it",
        lambda directory, _: scan.run(directory),
        needs_wrk=False,
    ),
    "outage": Measurement(
        "the rate of acceptance while S3 is down, and the way back",
        lambda directory, its: outage.run(
            directory, its.durability, its.outage_seconds, its.events_per_request
        ),
        chart="outage",
    ),
    "recovery": Measurement(
        "the journals of a killed server, until they are stored",
        lambda directory, its: recovery.run(directory, its.mebibytes),
        needs_wrk=False,
    ),
    "memory": Measurement(
        "a worker's memory, for minutes at full rate while S3 hangs",
        lambda directory, its: memory.run(directory, its.minutes, its.dlq_mebibytes * 1024**2),
        chart="memory",
    ),
}
