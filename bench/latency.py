"""How long an acknowledgement takes at half of the maximum rate, while batches are uploaded.

In each round wrk finds the maximum rate, and an open loop drives half of it.
Batches are small and the store takes its time, so that some batch is always
being filled, compressed and uploaded. The floor is driven at the rate of the
default: what it takes, machine and driver take.
"""

import contextlib
import statistics
from typing import NamedTuple

from bench import disk, driver, load, report, scrape, serving, store, traffic
from bench.contenders import DURABILITIES, LATENCY_FLOOR, Contender, latency
from bench.driver import Driven
from bench.target import Target, verdict

#: What a PUT of a small object takes, about, within a region.
_PUT_SECONDS = 0.1

_MOST_MS = 10.0
_MOST_MEDIANS = 5


class Round(NamedTuple):
    """One contender's part of one round."""

    most: load.Round | None  # at full load; None for the floor
    half: Driven
    puts_per_second: float  # objects stored during the latter


def run(directory: str, number_of_rounds: int, seconds: int) -> dict[Contender, list[Round]]:
    """Measure each DURABILITY in an empty directory, and print the report. Raises BenchError."""
    hits = traffic.read_hits(directory)
    found: dict[Contender, list[Round]] = {}
    with contextlib.ExitStack() as stack:
        ready = {}
        for level in DURABILITIES:
            s3 = stack.enter_context(store.Store(_PUT_SECONDS))
            contender = latency(level, s3.url)
            prepared = stack.enter_context(serving.serving(contender, hits, directory))
            scraper = stack.enter_context(scrape.Scraper(prepared.running.port))
            ready[contender] = prepared, s3, scraper
            found[contender] = []
        floor = stack.enter_context(serving.serving(LATENCY_FLOOR, hits, directory))
        found[LATENCY_FLOOR] = []
        for number in range(1, number_of_rounds + 1):
            for contender, (prepared, s3, _) in ready.items():
                found[contender].append(_round(contender, prepared, s3, seconds))
                _progress(contender, found[contender][-1].half, number)
            rate = found[held(found)][-1].half.rate
            half = driver.run(LATENCY_FLOOR, floor.running, floor.requests_path, rate, seconds)
            found[LATENCY_FLOOR].append(Round(None, half, 0.0))
            _progress(LATENCY_FLOOR, half, number)
        in_dlq = {c: scraper.sample().dlq_files for c, (_, _, scraper) in ready.items()}
    environ = next(iter(found)).server.environ
    print(
        f"- Load: one event a request, {next(iter(found)).connections} keep-alive connections; "
        f"{number_of_rounds} alternating rounds, in each of which wrk finds the maximum rate in "
        f"{seconds} s and an open loop drives half of it for {seconds} s\n"
        f"- Uploads: BATCH_SIZE={environ['BATCH_SIZE']}, "
        f"FLUSH_INTERVAL={environ['FLUSH_INTERVAL']}, to a store that answers each PUT after "
        f"{_PUT_SECONDS * 1000:.0f} ms\n"
        "- Figures: median (min-max) over the rounds; latency is a request's, from the time it "
        "was due; late is how far behind that time it was sent though a connection was free, p99: "
        "the machine's and the driver's part of a latency; driver is the cores that the open loop "
        "used\n"
        f"- Floor: driven at the rate of {held(found).name}"
    )
    print(report.dlq_disk(disk.file_system(directory)), end="\n\n")
    print(_table(found), end="\n\n")
    print(_target_line(held(found), found[held(found)]))
    for contender, rounds in found.items():
        if any(r.half.refused + r.half.unanswered for r in rounds):
            print(f"\n**{contender.name}: not every request was accepted; don't compare it.**")
        if in_dlq.get(contender):
            print(f"\n**{contender.name}: {in_dlq[contender]} batches went to the DLQ.**")
    return found


def allowed_ms(p50_ms: float) -> float:
    """Return what p99 may be."""
    return max(_MOST_MEDIANS * p50_ms, _MOST_MS)


def held(found: dict[Contender, list[Round]]) -> Contender:
    """Return the contender that is held to the target."""
    return next(c for c in found if c.server.environ.get("DURABILITY") == "journal")


def _progress(contender: Contender, half: Driven, number: int) -> None:
    report.progress(
        f"round {number}: {contender.name}: {half.rate:,.0f} requests/s, "
        f"p50 {half.p50_ms:.2f} ms, p99 {half.p99_ms:.2f} ms"
    )


def _round(
    contender: Contender, prepared: serving.Prepared, s3: store.Store, seconds: int
) -> Round:
    most = load.run(contender, prepared.running, prepared.requests_path, seconds)
    before = s3.objects
    half = driver.run(
        contender, prepared.running, prepared.requests_path, most.events_per_second / 2, seconds
    )
    return Round(most, half, (s3.objects - before) / half.seconds)


def _medians(rounds: list[Round]) -> tuple[float, float]:
    return (
        statistics.median(r.half.p50_ms for r in rounds),
        statistics.median(r.half.p99_ms for r in rounds),
    )


def _target_line(contender: Contender, rounds: list[Round]) -> str:
    p50, p99 = _medians(rounds)
    target = Target(
        f"p99 at half of the maximum rate, the larger of {_MOST_MEDIANS} x p50 and "
        f"{_MOST_MS:g} ms,",
        allowed_ms(p50), " ms",
    )  # fmt: skip
    return target.line(contender.name, p99)


def _table(found: dict[Contender, list[Round]]) -> str:
    titles = (
        "contender", "maximum, events/s", "driven, events/s", "p50 ms", "p99 ms", "max ms",
        "p99 may be", "target", "late ms", "PUT/s", "driver", "not 2xx",
    )  # fmt: skip
    rows = []
    for contender, rounds in found.items():
        p50, p99 = _medians(rounds)
        rates = [r.most.events_per_second for r in rounds if r.most]
        rows.append(
            (
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
        )
    return report.table(titles, rows)
