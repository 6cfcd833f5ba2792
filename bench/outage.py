"""The rate of acceptance while S3 is down, and the way back.

A steady load that the server can just not keep up with; in the middle of it the
store goes down, and later comes back under the same load. The rate is what the
server itself counts as accepted, read once a second.
"""

import os
import time

from bench import course, disk, load, machine, report, servers, store, traffic
from bench.contenders import Contender, outage
from bench.course import Course, Phase, Reading
from bench.errors import BenchError
from bench.scrape import Scraper
from bench.target import Target

TARGET = Target("events accepted and not in S3 after the way back", 0, digits=0)

#: Longer than a batch of the default size takes to fill.
_WARM_UP_SECONDS = 3
_BEFORE_SECONDS = 10
_AFTER_SECONDS = 10
#: How long the DLQ may take to empty itself, under load.
_PATIENCE_SECONDS = 90

_RAW_PREFIX = "raw/"
_SETTLE_SECONDS = 0.3


def run(
    directory: str, durability: str, outage_seconds: int, events_per_request: int
) -> list[Course]:
    """Measure each kind of outage in an empty directory, and print the report.

    Raises BenchError.
    """
    hits = traffic.read_hits(directory)
    courses = []
    failed = {}
    for kind in store.OUTAGES:
        own = os.path.join(directory, kind)
        os.mkdir(own)
        with store.Store() as s3:
            contender = outage(durability, s3.url, events_per_request)
            try:
                courses.append(_course(kind, s3, contender, hits, own, outage_seconds))
            except BenchError as exc:
                report.progress(f"left out: {kind}: {exc}")
                failed[kind] = str(exc)
    print(
        f"- Outage: DURABILITY={durability}, {events_per_request} events a request, at full load; "
        f"S3 is down for {outage_seconds} s, in each of the ways below\n"
        "- Figures: events accepted a second; what is in the DLQ at the end of the outage; "
        "seconds from then until the DLQ is empty, still under load "
        f"(never: not within {_PATIENCE_SECONDS}); events accepted and not in S3 after a graceful "
        "stop; CPU of the server's processes; cores that other processes used meanwhile"
    )
    print(report.dlq_disk(disk.file_system(directory)), end="\n\n")
    if courses:
        print(course.summary(courses), end="\n\n")
        print(course.phases(courses), end="\n\n")
        missing = max(courses, key=lambda one: one.missing)
        print(TARGET.line(f"S3 {missing.kind}", missing.missing))
    if failed:
        raise BenchError(report.left_out(failed))
    return courses


def _course(
    kind: str, s3: store.Store, contender: Contender, hits: list[traffic.Hit], directory: str,
    outage_seconds: int,
) -> Course:  # fmt: skip
    contents = traffic.requests(hits, contender)
    path = os.path.join(directory, "requests")
    traffic.write(path, contents)
    report.progress(f"outage, {kind}: starting {contender.name}")
    with (
        servers.running(contender.server, directory) as running,
        Scraper(running.port) as scraper,
    ):
        servers.check(contender, running.port, contents)
        most = _WARM_UP_SECONDS + _BEFORE_SECONDS + outage_seconds + _PATIENCE_SECONDS
        with load.steady(contender, running, path, 2 * most):
            time.sleep(_WARM_UP_SECONDS)
            before = [_read(scraper, running)]
            _watch(before, scraper, running, _BEFORE_SECONDS)
            report.progress(f"outage, {kind}: down")
            s3.fail(kind)
            during = before[-1:]
            _watch(during, scraper, running, outage_seconds)
            s3.heal()
            report.progress(f"outage, {kind}: back")
            after = during[-1:]
            _watch(after, scraper, running, _AFTER_SECONDS)
            while after[-1].sample.dlq_files and after[-1].at - after[0].at < _PATIENCE_SECONDS:
                _watch(after, scraper, running, 1)
        accepted = _settled(scraper)
    # the server has stopped: what it could store is stored
    return Course(
        kind, Phase("before", before), Phase("during", during), Phase("after", after),
        missing=accepted - s3.stored_events(_RAW_PREFIX),
    )  # fmt: skip


def _watch(
    readings: list[Reading], scraper: Scraper, server: servers.Running, seconds: int
) -> None:
    """Add a reading a second."""
    start = readings[-1].at
    for number in range(1, seconds + 1):
        time.sleep(max(0.0, start + number - time.monotonic()))
        readings.append(_read(scraper, server))


def _read(scraper: Scraper, server: servers.Running) -> Reading:
    sample = scraper.sample()
    return Reading(
        time.monotonic(), sample, machine.tree_seconds(server.pid), machine.others_seconds()
    )


def _settled(scraper: Scraper) -> int:
    """Return the events accepted, once the last requests are through."""
    accepted = -1
    while (found := scraper.sample().accepted) != accepted:
        accepted = found
        time.sleep(_SETTLE_SECONDS)
    return accepted
