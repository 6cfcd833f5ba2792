"""How long an acknowledgement takes: at half of the maximum rate, and while the DLQ is replayed.

wrk finds the maximum rate, and an open loop drives a part of it. Batches are small and the store
takes its time, so that some batch is always being filled, compressed and uploaded. The echo is
driven at the rate of the compiled default: what it takes, machine and driver take.
"""

import contextlib
import statistics
from argparse import Namespace
from typing import NamedTuple

from bench import contenders, driver, load, report, servers
from bench.contenders import LATENCY_FLOOR, Contender
from bench.driver import Driven
from bench.report import Target
from bench.servers import Serving
from bench.store import Store

#: What a PUT of a small object takes, about, within a region.
_PUT_SECONDS = 0.1

TARGET = Target("p99 at half of the maximum rate ÷ the echo's,", 5)
_REPLAY_TARGET = Target("p99 during the replay ÷ before the outage,", 3)
_OUTAGE_SECONDS = 60


class Round(NamedTuple):
    """One contender's part of one round."""

    half: Driven
    puts_per_second: float


def run(directory: str, options: Namespace) -> dict[Contender, list[Round]]:
    """Measure the wait for an answer at half of the maximum rate, during uploads."""
    with contextlib.ExitStack() as stack:
        ready = []
        for contender in contenders.LATENCY:
            s3 = stack.enter_context(Store(_PUT_SECONDS))
            put = contenders.to_store(contender, s3.url)
            ready.append((stack.enter_context(servers.serving(put, directory)), s3))
        floor = stack.enter_context(servers.serving(LATENCY_FLOOR, directory))
        found: dict[Contender, list[Round]] = {one.contender: [] for one, _ in ready}
        found[LATENCY_FLOOR] = []
        for number in range(1, options.rounds + 1):
            for serving, s3 in ready:
                found[serving.contender].append(_round(serving, s3, options.seconds))
            rate = found[held(found)][-1].half.rate
            half = driver.run(floor, rate, options.seconds)
            found[LATENCY_FLOOR].append(Round(half, 0.0))
            report.progress(f"round {number} of {options.rounds} done")
    report.describe(
        directory,
        f"Load: one event a request, {LATENCY_FLOOR.connections} keep-alive connections; "
        f"{options.rounds} alternating rounds, in each of which wrk finds the maximum rate in "
        f"{options.seconds} s and an open loop drives half of it for {options.seconds} s",
        f"Uploads: batches of 1,000, to a store that takes {_PUT_SECONDS * 1000:.0f} ms for a PUT",
        "Figures: median (min-max) over the rounds; latency is a request's, from the time it was "
        "due; late is how far behind that time it was sent though a connection was free, p99: the "
        "machine's and the driver's part of a latency",
        f"Echo: driven at the rate of {held(found).name}",
    )
    _print(found)
    return found


def held(found: dict[Contender, list[Round]]) -> Contender:
    """Return the contender that is held to the target."""
    return next(c for c in found if c.name.endswith("journal, compiled"))


def _round(serving: Serving, s3: Store, seconds: int) -> Round:
    most = load.run(serving, seconds).events_per_second
    before = len(s3.objects)
    half = driver.run(serving, most / 2, seconds)
    return Round(half, (len(s3.objects) - before) / half.seconds)


def _print(found: dict[Contender, list[Round]]) -> None:
    echo = [r.half.p99_ms for r in found[LATENCY_FLOOR]]
    rows = []
    for contender, rounds in found.items():
        p99 = [r.half.p99_ms for r in rounds]
        rows.append(
            (
                contender.name,
                report.spread((r.half.rate for r in rounds), 0),
                report.spread((r.half.p50_ms for r in rounds), 2),
                report.spread(p99, 2),
                report.ratio(p99, echo),
                report.spread((r.half.max_ms for r in rounds), 1),
                report.spread((r.half.late_p99_ms for r in rounds), 2),
                f"{statistics.median(r.puts_per_second for r in rounds):.1f}",
                str(sum(r.half.missed for r in rounds)),
            )
        )
    report.table(
        "contender | events/s | p50 ms | p99 ms | p99 ÷ echo | max ms | late ms | PUT/s | not 2xx",
        rows,
    )
    p99 = [r.half.p99_ms for r in found[held(found)]]
    print(TARGET.line(held(found).name, statistics.median(p99) / statistics.median(echo)))


def replay(directory: str, options: Namespace) -> None:
    """Hold the wait for an answer while the DLQ is replayed to that before the outage."""
    rows, lines = [], []
    for contender in contenders.REPLAY:
        with Store(_PUT_SECONDS) as s3:
            put = contenders.to_store(contender, s3.url)
            with servers.serving(put, directory) as serving:
                rate = load.run(serving, options.seconds).events_per_second / 3
                rounds = [_outage(serving, s3, rate, options) for _ in range(options.rounds)]
        phases = list(zip(*rounds, strict=True))
        p99s = [[one.p99_ms for one in phase] for phase in phases]
        for name, phase, p99 in zip(("before", "during", "replay"), phases, p99s, strict=True):
            p50, most = (one.p50_ms for one in phase), (one.max_ms for one in phase)
            missed = str(sum(one.missed for one in phase))
            spreads = report.spread(p50, 2), report.spread(p99, 2), report.spread(most, 1)
            rows.append((contender.name, name, *spreads, report.ratio(p99, p99s[0]), missed))
        quotient = statistics.median(p99s[2]) / statistics.median(p99s[0])
        lines.append(_REPLAY_TARGET.line(contender.name, quotient))
    report.describe(
        directory,
        f"Load: a third of the maximum rate, by an open loop; S3 answers 503 for "
        f"{_OUTAGE_SECONDS} s; {options.rounds} outages; replay is the part of "
        f"{options.seconds} s with the highest p99 until the DLQ is empty",
    )
    report.table("contender | phase | p50 ms | p99 ms | max ms | p99 ÷ before | not 2xx", rows, 2)
    print("\n".join(lines))


def _outage(serving: Serving, s3: Store, rate: float, options: Namespace) -> list[Driven]:
    """Return what was found before an outage, during it, and while the DLQ was replayed."""
    before = driver.run(serving, rate, options.seconds)
    s3.fail("503")
    during = driver.run(serving, rate, _OUTAGE_SECONDS)
    s3.heal()
    parts: list[Driven] = []
    while not parts or servers.sample(serving.port).dlq_files:
        parts.append(driver.run(serving, rate, options.seconds))
    worst = max(parts, key=lambda one: one.p99_ms)
    report.progress(f"p99 {before.p99_ms:.2f} ms, {during.p99_ms:.2f}, {worst.p99_ms:.2f}")
    return [before, during, worst]
