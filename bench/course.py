"""The course of an outage: readings, a second apart, and what they add up to.

Rates suffer from whatever else runs on the machine; the CPU of an event much
less so, and on a saturated server it is what the rate follows from.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from bench import report
from bench.scrape import Sample


class Reading(NamedTuple):
    """One moment."""

    at: float  # time.monotonic
    sample: Sample
    server_seconds: float  # CPU of the server's processes so far
    others_seconds: float  # CPU of all processes but the benchmark's


class Phase(NamedTuple):
    """A part of the course; it begins with the last reading of the part before."""

    name: str
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

    @property
    def other_cores(self) -> float:
        """What the benchmark shared the machine with."""
        first, last = self.readings[0], self.readings[-1]
        # two sources in ticks: their difference may fall a tick below nothing
        return max(0.0, last.others_seconds - first.others_seconds) / (last.at - first.at)


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


def summary(courses: Sequence[Course]) -> str:
    """Return a table with a row for each outage."""
    titles = (
        "outage", "before", "during", "during ÷ before", "the same for CPU µs/event",
        "slowest second", "DLQ files", "DLQ MB", "DLQ empty after s", "not in S3",
    )  # fmt: skip
    return report.table(titles, [_row(course) for course in courses])


def phases(courses: Sequence[Course]) -> str:
    """Return a table with a row for each part of each outage."""
    titles = (
        "outage", "phase", "events/s", "CPU µs/event", "refused", "other cores",
        "events/s, second by second",
    )  # fmt: skip
    rows = [
        (
            course.kind,
            phase.name,
            f"{phase.rate:,.0f}",
            f"{phase.cpu_us:.1f}",
            f"{phase.refused:,}",
            f"{phase.other_cores:.2f}",
            " ".join(f"{rate:.0f}" for rate in phase.rates),
        )
        for course in courses
        for phase in (course.before, course.during, course.after)
    ]
    return report.table(titles, rows, texts=2)


def _row(course: Course) -> tuple[str, ...]:
    before, during = course.before, course.during
    end = during.readings[-1].sample
    empty = course.empty_seconds
    return (
        course.kind,
        f"{before.rate:,.0f}",
        f"{during.rate:,.0f}",
        f"{during.rate / before.rate:.2f}" if before.rate else "-",
        f"{during.cpu_us / before.cpu_us:.2f}" if before.cpu_us else "-",
        f"{min(during.rates):,.0f}",
        f"{end.dlq_files:,}",
        f"{end.dlq_bytes / 1e6:,.1f}",
        "never" if empty is None else f"{empty:.0f}",
        f"{course.missing:,}",
    )


def _rate(first: Reading, last: Reading) -> float:
    return (last.sample.accepted - first.sample.accepted) / (last.at - first.at)
