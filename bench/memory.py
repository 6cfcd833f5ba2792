"""What memory a worker takes while S3 hangs, for minutes at full rate with the defaults.

Nothing is stored meanwhile: what is accepted ends on disk, and what a worker
keeps of it in memory is bounded (docs/tuning.md). The DLQ is bounded too; once it is full,
requests are refused, and that is fine here.
"""

import time
from typing import NamedTuple

from bench import ceiling, disk, load, report, serving, store, traffic
from bench.contenders import memory
from bench.errors import BenchError
from bench.scrape import Sample, Scraper
from bench.target import Target
from estat import config

TARGET = Target("memory of the worker, at its peak,", 130.0, " MB", digits=1)

_INTERVAL_SECONDS = 5.0
_ROWS = 10
_WARM_UP_SECONDS = 60


class Reading(NamedTuple):
    """One moment."""

    seconds: float  # under load
    rss: int  # bytes
    peak: int  # bytes, so far
    sample: Sample


def run(directory: str, minutes: int, dlq_bytes: int) -> list[Reading]:
    """Measure in an empty directory, and print the report. Raises BenchError."""
    hits = traffic.read_hits(directory)
    seconds = 60 * minutes
    with store.Store() as s3:
        contender = memory(s3.url, dlq_bytes)
        with (
            serving.serving(contender, hits, directory) as prepared,
            Scraper(prepared.running.port) as scraper,
        ):
            worker = _worker(prepared.running.pid)
            readings = [_read(worker, scraper, 0.0)]
            s3.fail("hang")
            with load.steady(contender, prepared.running, prepared.requests_path, 2 * seconds):
                _watch(readings, worker, scraper, seconds)
            s3.heal()
    base, last = readings[0], readings[-1]
    peak = last.peak
    packed = max(r.sample.dlq_bytes / max(r.sample.dlq_files, 1) for r in readings)
    body = max(len(content.partition(b"\r\n\r\n")[2]) for content in prepared.contents)
    settings = config.load({"RAW_BUCKET": "bench"}, env_file="")
    bound = ceiling.worker_bytes(settings, base.rss, packed, contender.connections, body)
    print(
        f"- Memory: one worker, {contender.name} and the other defaults but "
        f"DLQ_MAX_SIZE_BYTES={dlq_bytes}; one event a request, {contender.connections} keep-alive "
        f"connections at full rate for {minutes} min; every request to S3 hangs\n"
        f"- Figures: VmRSS and VmHWM of the worker; MB are 10^6 bytes; events a second since the "
        f"row before"
    )
    print(report.dlq_disk(disk.file_system(directory)), end="\n\n")
    titles = (
        "after s", "RSS MB", "peak MB", "accepted", "events/s", "refused", "DLQ files", "DLQ MB"
    )  # fmt: skip
    print(report.table(titles, _rows(readings), texts=0), end="\n\n")
    print(_growth(readings))
    print(
        f"- Formula of docs/tuning.md: {base.rss / 1e6:.0f} MB idle, "
        f"{packed / 1e3:.0f} kB for a compressed batch, {contender.connections} requests of at "
        f"most {body:,} bytes: {bound / 1e6:.0f} MB; found at the peak {peak / 1e6:.0f} MB, "
        f"{peak / bound:.2f} of it"
    )
    full = last.sample.refused > base.sample.refused
    print(
        f"- The DLQ {'was full at the end or before' if full else 'was not full'}: "
        f"{last.sample.refused - base.sample.refused:,} requests refused"
    )
    print(TARGET.line(contender.name, peak / 1e6))
    return readings


def _watch(readings: list[Reading], worker: int, scraper: Scraper, seconds: int) -> None:
    began = time.monotonic()
    elapsed = 0.0
    while elapsed < seconds:
        time.sleep(min(_INTERVAL_SECONDS, seconds - elapsed))
        elapsed = time.monotonic() - began
        readings.append(_read(worker, scraper, elapsed))
        last = readings[-1]
        report.progress(
            f"{elapsed:.0f} s: {last.rss / 1e6:.1f} MB, {last.sample.accepted:,} events, "
            f"DLQ {last.sample.dlq_bytes / 1e6:.0f} MB, {last.sample.refused:,} refused"
        )


def _rows(readings: list[Reading]) -> list[list[str]]:
    """Return the first, and some at even distances up to the last."""
    last = len(readings) - 1
    chosen = sorted({round(n * last / _ROWS) for n in range(_ROWS + 1)})
    rows = []
    for before, number in zip([0, *chosen], chosen, strict=False):
        one, earlier = readings[number], readings[before]
        seconds = one.seconds - earlier.seconds
        events = one.sample.accepted - earlier.sample.accepted
        rows.append(
            [
                f"{one.seconds:.0f}",
                f"{one.rss / 1e6:.1f}",
                f"{one.peak / 1e6:.1f}",
                f"{one.sample.accepted:,}",
                f"{events / seconds:,.0f}" if seconds else "",
                f"{one.sample.refused:,}",
                f"{one.sample.dlq_files:,}",
                f"{one.sample.dlq_bytes / 1e6:,.0f}",
            ]
        )
    return rows


def _growth(readings: list[Reading]) -> str:
    """Say how much memory grew once the first minute was over."""
    warm = [r for r in readings if r.seconds >= _WARM_UP_SECONDS]
    if len(warm) < 2:
        return "- Growth: too short a run to tell"
    minutes = (warm[-1].seconds - warm[0].seconds) / 60
    grown = (warm[-1].rss - warm[0].rss) / 1e6
    return f"- Growth: {grown:+.1f} MB in the {minutes:.1f} minutes after the first"


def _read(worker: int, scraper: Scraper, seconds: float) -> Reading:
    sample = scraper.sample()
    fields = {}
    try:
        with open(f"/proc/{worker}/status") as file:
            for line in file:
                name, _, value = line.partition(":")
                fields[name] = value
    except OSError as exc:
        raise BenchError(f"the worker {worker} has ended") from exc
    rss, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return Reading(seconds, rss, peak, sample)


def _worker(arbiter: int) -> int:
    with open(f"/proc/{arbiter}/task/{arbiter}/children") as file:
        children = file.read().split()
    if len(children) != 1:
        raise BenchError(f"the server has {len(children)} workers, not one")
    return int(children[0])
