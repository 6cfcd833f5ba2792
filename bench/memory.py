"""What memory a worker takes while S3 hangs, for minutes at full rate with the defaults.

Nothing is stored meanwhile: what is accepted ends on disk, and what a worker keeps
of it in memory is bounded (docs/sizing.md). The DLQ is bounded too; once it is full,
requests are refused, and that is fine here.
"""

import time
from argparse import Namespace
from typing import NamedTuple

from bench import BenchError, contenders, load, report, servers
from bench.report import Target
from bench.servers import Sample, Serving
from bench.store import Store
from estat.config import loading
from estat.config.settings import Settings

TARGET = Target("memory of the worker, at its peak,", 130.0, " MB", digits=1)

_INTERVAL_SECONDS = 5.0
_ROWS = 10
_WARM_UP_SECONDS = 60

# Python objects of a body, in its sizes. docs/sizing.md counts 64, for bodies that are made to
# hurt; the benchmark's are not.
_PARSED = 10


class Reading(NamedTuple):
    """One moment."""

    seconds: float  # under load
    rss: int  # bytes
    peak: int  # bytes, so far
    sample: Sample


def ceiling(settings: Settings, base: float, packed: float, requests: int, body: float) -> float:
    """Return the upper bound of a worker's memory: the one line of docs/sizing.md, in bytes.

    ``base`` is an idle worker's memory, ``packed`` the size of a compressed batch,
    ``requests`` how many are being read or not answered yet, and ``body`` the size
    of the largest of them: what MAX_BATCH_BODY_SIZE would be if none were larger.
    """
    lines = max(settings.batch_bytes, body) * (7 if settings.durability.journaled else 5)
    packed_copies = settings.upload_queue + settings.upload_concurrency + 2 + 8
    bodies = (2 * requests + _PARSED) * body
    return base + 2 * settings.queue_bytes + lines + packed_copies * packed + bodies


def run(directory: str, options: Namespace) -> list[Reading]:
    """Watch a worker's memory for minutes at full rate while S3 hangs."""
    dlq_bytes = options.dlq_mebibytes * 1024**2
    with Store() as s3, servers.serving(contenders.memory(s3.url, dlq_bytes), directory) as serving:
        readings = _watch(serving, s3, 60 * options.minutes)
    connections = serving.contender.connections
    report.describe(
        directory,
        f"Memory: one worker, {serving.contender.name} and the other defaults but "
        f"DLQ_MAX_SIZE_BYTES={dlq_bytes}; one event a request, {connections} keep-alive "
        f"connections at full rate for {options.minutes} min; every request to S3 hangs",
        "Figures: VmRSS and VmHWM of the worker; MB are 10^6 bytes; events a second since the row "
        "before",
    )
    report.table(
        "after s | RSS MB | peak MB | accepted | events/s | refused | DLQ files | DLQ MB",
        _rows(readings),
        texts=0,
    )
    base, last = readings[0], readings[-1]
    packed = max(r.sample.dlq_bytes / max(r.sample.dlq_files, 1) for r in readings)
    body = max(len(content.partition(b"\r\n\r\n")[2]) for content in serving.contents)
    settings = loading.load({"RAW_BUCKET": "bench"}, env_file="")
    bound = ceiling(settings, base.rss, packed, connections, body)
    print(
        f"- Growth: {_growth(readings)}\n"
        f"- Formula of docs/sizing.md: {base.rss / 1e6:.0f} MB idle, "
        f"{packed / 1e3:.0f} kB for a compressed batch, {connections} requests of at most "
        f"{body:,} bytes: {bound / 1e6:.0f} MB; found at the peak {last.peak / 1e6:.0f} MB, "
        f"{last.peak / bound:.2f} of it"
    )
    print(TARGET.line(serving.contender.name, last.peak / 1e6))
    return readings


def _watch(serving: Serving, s3: Store, seconds: int) -> list[Reading]:
    """Return what was read before and during a load while the store hangs."""
    worker = _worker(serving.pid)
    readings = [_read(worker, serving, 0.0)]
    s3.fail("hang")
    with load.steady(serving, 2 * seconds):
        began, elapsed = time.monotonic(), 0.0
        while elapsed < seconds:
            time.sleep(min(_INTERVAL_SECONDS, seconds - elapsed))
            elapsed = time.monotonic() - began
            last = _read(worker, serving, elapsed)
            readings.append(last)
            report.progress(
                f"{elapsed:.0f} s: {last.rss / 1e6:.1f} MB, {last.sample.accepted:,} events, "
                f"DLQ {last.sample.dlq_bytes / 1e6:.0f} MB, {last.sample.refused:,} refused"
            )
    s3.heal()
    return readings


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
        return "too short a run to tell"
    minutes = (warm[-1].seconds - warm[0].seconds) / 60
    grown = (warm[-1].rss - warm[0].rss) / 1e6
    return f"{grown:+.1f} MB in the {minutes:.1f} minutes after the first"


def _read(worker: int, serving: Serving, seconds: float) -> Reading:
    try:
        with open(f"/proc/{worker}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
    except OSError as exc:
        raise BenchError(f"the worker {worker} has ended") from exc
    rss, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return Reading(seconds, rss, peak, servers.sample(serving.port))


def _worker(arbiter: int) -> int:
    with open(f"/proc/{arbiter}/task/{arbiter}/children") as file:
        children = file.read().split()
    if len(children) != 1:
        raise BenchError(f"the server has {len(children)} workers, not one")
    return int(children[0])
