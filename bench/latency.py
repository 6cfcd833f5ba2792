"""How long an acknowledgement takes at half of the maximum rate, while batches are uploaded.

In each round wrk finds the maximum rate, and an open loop drives half of it.
Batches are small and the store takes its time, so that some batch is always
being filled, compressed and uploaded. The floor is driven at the rate of the
default: what it takes, machine and driver take.
"""

import contextlib
import statistics
from argparse import Namespace
from typing import NamedTuple

from bench import contenders, driver, load, report, servers
from bench.contenders import DURABILITIES, LATENCY_FLOOR, Contender
from bench.driver import Driven
from bench.report import Target, verdict
from bench.servers import Serving
from bench.store import Store

#: What a PUT of a small object takes, about, within a region.
_PUT_SECONDS = 0.1

_MOST_MS = 10.0
_MOST_MEDIANS = 5


class Round(NamedTuple):
    """One contender's part of one round."""

    most: load.Round | None  # at full load; None for the floor
    half: Driven
    puts_per_second: float  # objects stored during the latter


def run(directory: str, options: Namespace) -> dict[Contender, list[Round]]:
    """Measure the wait for an answer at half of the maximum rate, during uploads."""
    rounds, seconds = options.rounds, options.seconds
    with contextlib.ExitStack() as stack:
        ready = []
        for level in DURABILITIES:
            s3 = stack.enter_context(Store(_PUT_SECONDS))
            contender = contenders.latency(level, s3.url)
            ready.append((stack.enter_context(servers.serving(contender, directory)), s3))
        floor = stack.enter_context(servers.serving(LATENCY_FLOOR, directory))
        found: dict[Contender, list[Round]] = {one.contender: [] for one, _ in ready}
        found[LATENCY_FLOOR] = []
        for number in range(1, rounds + 1):
            for serving, s3 in ready:
                found[serving.contender].append(_round(serving, s3, seconds))
            rate = found[held(found)][-1].half.rate
            found[LATENCY_FLOOR].append(Round(None, driver.run(floor, rate, seconds), 0.0))
            report.progress(f"round {number} of {rounds} done")
        in_dlq = {one.contender: servers.sample(one.port).dlq_files for one, _ in ready}
    environ = ready[0][0].contender.environ
    report.describe(
        directory,
        f"Load: one event a request, {LATENCY_FLOOR.connections} keep-alive connections; "
        f"{rounds} alternating rounds, in each of which wrk finds the maximum rate in "
        f"{seconds} s and an open loop drives half of it for {seconds} s",
        f"Uploads: BATCH_SIZE={environ['BATCH_SIZE']}, FLUSH_INTERVAL={environ['FLUSH_INTERVAL']}, "
        f"to a store that answers each PUT after {_PUT_SECONDS * 1000:.0f} ms",
        "Figures: median (min-max) over the rounds; latency is a request's, from the time it was "
        "due; late is how far behind that time it was sent though a connection was free, p99: the "
        "machine's and the driver's part of a latency; driver is the cores that the open loop used",
        f"Floor: driven at the rate of {held(found).name}",
    )
    _print(found, in_dlq)
    return found


def allowed_ms(p50_ms: float) -> float:
    """Return what p99 may be."""
    return max(_MOST_MEDIANS * p50_ms, _MOST_MS)


def held(found: dict[Contender, list[Round]]) -> Contender:
    """Return the contender that is held to the target."""
    return next(c for c in found if c.environ.get("DURABILITY") == "journal")


def _round(serving: Serving, s3: Store, seconds: int) -> Round:
    most = load.run(serving, seconds)
    before = len(s3.objects)
    half = driver.run(serving, most.events_per_second / 2, seconds)
    return Round(most, half, (len(s3.objects) - before) / half.seconds)


def _medians(rounds: list[Round]) -> tuple[float, float]:
    p50 = statistics.median(r.half.p50_ms for r in rounds)
    return p50, statistics.median(r.half.p99_ms for r in rounds)


def _print(found: dict[Contender, list[Round]], in_dlq: dict[Contender, int]) -> None:
    report.table(
        "contender | maximum, events/s | driven, events/s | p50 ms | p99 ms | max ms | p99 may be "
        "| target | late ms | PUT/s | driver | not 2xx",
        [_row(contender, rounds) for contender, rounds in found.items()],
    )
    p50, p99 = _medians(found[held(found)])
    larger = f"the larger of {_MOST_MEDIANS} x p50 and {_MOST_MS:g} ms"
    target = Target(f"p99 at half of the maximum rate, {larger},", allowed_ms(p50), " ms")
    print(target.line(held(found).name, p99))
    for contender, rounds in found.items():
        if any(r.half.refused + r.half.unanswered for r in rounds):
            print(f"\n**{contender.name}: not every request was accepted; don't compare it.**")
        if in_dlq.get(contender):
            print(f"\n**{contender.name}: {in_dlq[contender]} batches went to the DLQ.**")


def _row(contender: Contender, rounds: list[Round]) -> tuple[str, ...]:
    p50, p99 = _medians(rounds)
    rates = [r.most.events_per_second for r in rounds if r.most]
    return (
        contender.name,
        report.spread(rates, 0) if rates else "-",
        report.spread((r.half.rate for r in rounds), 0),
        report.spread((r.half.p50_ms for r in rounds), 2),
        report.spread((r.half.p99_ms for r in rounds), 2),
        report.spread((r.half.max_ms for r in rounds), 1),
        f"{allowed_ms(p50):.1f}",
        verdict(p99 <= allowed_ms(p50)) if rates else "",
        report.spread((r.half.late_p99_ms for r in rounds), 2),
        f"{statistics.median(r.puts_per_second for r in rounds):.1f}",
        f"{statistics.median(r.half.cores for r in rounds):.2f}",
        str(sum(r.half.refused + r.half.unanswered for r in rounds)),
    )
