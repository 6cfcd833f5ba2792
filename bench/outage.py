"""The rate of acceptance while S3 is down, and the way back.

A steady load that the server can just not keep up with; in the middle of it the
store goes down, and later comes back under the same load. The rate is what the
server itself counts as accepted, read once a second. Rates suffer from whatever
else runs on the machine; the CPU of an event much less so, and on a saturated
server it is what the rate follows from.
"""

import itertools
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import NamedTuple

from bench import BenchError, contenders, load, machine, report, servers
from bench.report import Target
from bench.servers import Sample, Serving
from bench.store import OUTAGES, Store

TARGET = Target("events accepted and not in S3 after the way back", 0, digits=0)

#: Longer than a batch of the default size takes to fill.
_WARM_UP_SECONDS = 3
_BEFORE_SECONDS = 10
_AFTER_SECONDS = 10
#: How long the DLQ may take to empty itself, under load.
_PATIENCE_SECONDS = 90

_SETTLE_SECONDS = 0.3


class Reading(NamedTuple):
    """One moment."""

    at: float  # time.monotonic
    sample: Sample
    server_seconds: float  # CPU of the server's processes so far


class Phase(NamedTuple):
    """A part of the course; it begins with the last reading of the part before."""

    readings: list[Reading]

    @property
    def rate(self) -> float:
        """Events accepted a second."""
        return _rate(self.readings[0], self.readings[-1])

    @property
    def rates(self) -> list[float]:
        """Events accepted a second, second by second."""
        return [_rate(a, b) for a, b in itertools.pairwise(self.readings)]

    @property
    def refused(self) -> int:
        """Requests refused."""
        return self.readings[-1].sample.refused - self.readings[0].sample.refused

    @property
    def cpu_us(self) -> float:
        """CPU of the server for each event accepted."""
        first, last = self.readings[0], self.readings[-1]
        events = last.sample.accepted - first.sample.accepted
        return (last.server_seconds - first.server_seconds) * 1e6 / max(events, 1)


class Course(NamedTuple):
    """One outage from before to after."""

    kind: str
    before: Phase
    during: Phase
    after: Phase
    missing: int  # events accepted and not in the store after the stop

    @property
    def empty_seconds(self) -> float | None:
        """From the end of the outage until the DLQ is empty for good; None if it isn't.

        What hung may arrive there after the end.
        """
        readings = self.after.readings
        filled = [number for number, r in enumerate(readings) if r.sample.dlq_files]
        empty = filled[-1] + 1 if filled else 0
        return readings[empty].at - readings[0].at if empty < len(readings) else None


def run(directory: str, options: Namespace) -> list[Course]:
    """Watch the rate of acceptance while S3 is down, and the way back."""
    courses = []
    left_out = []
    for kind in OUTAGES:
        try:
            courses.append(_course(kind, directory, options))
        except BenchError as exc:
            left_out.append(report.left_out(kind, exc))
    report.describe(
        directory,
        f"Outage: DURABILITY={options.durability}, {options.events_per_request} events a request, "
        f"at full load; S3 is down for {options.outage_seconds} s, in each of the ways below",
        "Figures: events accepted a second; what is in the DLQ at the end of the outage; "
        "seconds from then until the DLQ is empty, still under load "
        f"(never: not within {_PATIENCE_SECONDS}); events accepted and not in S3 after a graceful "
        "stop; CPU of the server's processes",
    )
    if courses:
        _print_outages(courses)
        missing = max(courses, key=lambda one: one.missing)
        print(TARGET.line(f"S3 {missing.kind}", missing.missing))
    if left_out:
        raise BenchError("\n".join(left_out))
    return courses


def _course(kind: str, directory: str, options: Namespace) -> Course:
    seconds = options.outage_seconds
    most = _WARM_UP_SECONDS + _BEFORE_SECONDS + seconds + _PATIENCE_SECONDS
    with Store() as s3:
        contender = contenders.outage(options.durability, s3.url, options.events_per_request)
        with servers.serving(contender, directory) as serving:
            with load.steady(serving, 2 * most):
                time.sleep(_WARM_UP_SECONDS)
                before = [_read(serving)]
                _watch(before, serving, _BEFORE_SECONDS)
                report.progress(f"outage, {kind}: down")
                s3.fail(kind)
                during = before[-1:]
                _watch(during, serving, seconds)
                s3.heal()
                report.progress(f"outage, {kind}: back")
                after = during[-1:]
                _watch(after, serving, _AFTER_SECONDS)
                while after[-1].sample.dlq_files and after[-1].at - after[0].at < _PATIENCE_SECONDS:
                    _watch(after, serving, 1)
            accepted = _settled(serving)
        # the server has stopped: what it could store is stored
        missing = accepted - s3.stored_events("raw/")
    return Course(kind, *map(Phase, (before, during, after)), missing)


def _watch(readings: list[Reading], serving: Serving, seconds: int) -> None:
    """Add a reading a second."""
    start = readings[-1].at
    for number in range(1, seconds + 1):
        time.sleep(max(0.0, start + number - time.monotonic()))
        readings.append(_read(serving))


def _read(serving: Serving) -> Reading:
    sample = servers.sample(serving.port)
    used = machine.cpu_seconds(serving.pid)
    return Reading(time.monotonic(), sample, used)


def _settled(serving: Serving) -> int:
    """Return the events accepted, once the last requests are through."""
    accepted = -1
    while (found := servers.sample(serving.port).accepted) != accepted:
        accepted = found
        time.sleep(_SETTLE_SECONDS)
    return accepted


def _print_outages(courses: Sequence[Course]) -> None:
    rows = []
    for course in courses:
        before, during = course.before, course.during
        end, empty = during.readings[-1].sample, course.empty_seconds
        rows.append(
            (
                course.kind,
                f"{before.rate:,.0f}",
                f"{during.rate:,.0f}",
                f"{during.rate / before.rate:.2f}" if before.rate else "-",
                f"{during.cpu_us / before.cpu_us:.2f}" if before.cpu_us else "-",
                f"{min(during.rates):,.0f}",
                f"{end.dlq_files:,}",
                f"{end.dlq_bytes / 1e6:,.1f}",
                "never" if empty is None else f"{empty:.0f}",
                f"{sum(phase.refused for phase in (before, during, course.after)):,}",
                f"{course.missing:,}",
            )
        )
    report.table(
        "outage | before | during | during ÷ before | the same for CPU µs/event | slowest second "
        "| DLQ files | DLQ MB | DLQ empty after s | refused | not in S3",
        rows,
    )


def _rate(first: Reading, last: Reading) -> float:
    return (last.sample.accepted - first.sample.accepted) / (last.at - first.at)
