"""What an event costs, in rounds of wrk that the contenders take in turns.

All servers stay up to the end: a round never pays for a start. A contender that
does not start or serve is left out and reported; the others go on.
"""

import contextlib
import statistics
from argparse import Namespace
from collections.abc import Sequence

from bench import BenchError, load, loop, report, servers, traffic
from bench.contenders import DURABILITY, FLOOR, NDJSON, OVERHEAD, WORKERS, Contender, stored
from bench.report import Target
from bench.store import Store

OVERHEAD_TARGETS = {"journal": 0.26, "journal, compiled": 0.20, "fsync, compiled": 0.28}
WORKERS_TARGET = Target("CPU per event with 2 workers ÷ with 1", 1.15)
#: What a PUT takes where answers wait for it.
_PUT_SECONDS = 0.03

NDJSON_TARGETS = [Target("CPU per event, server ÷ plain loop,", most) for most in (1.25, 1.1)]

Found = dict[Contender, list[load.Round]]


def overhead(directory: str, options: Namespace) -> Found:
    """Hold an event to a bare Falcon resource, and to a bare gevent echo.

    What is above the echo is all that work on the server could ever save.
    """
    found = _in_turns(OVERHEAD, directory, options)
    bare = statistics.median(r.cpu_us for r in found[OVERHEAD[0]])
    for contender, rounds in found.items():
        if most := OVERHEAD_TARGETS.get(contender.name.rpartition("=")[2]):
            target = Target("CPU per event ÷ the bare Falcon resource's,", most)
            print(target.line(contender.name, statistics.median(r.cpu_us for r in rounds) / bare))
    return found


def durability(directory: str, options: Namespace) -> None:
    """Compare an event under each DURABILITY.

    At full load a request's latency is mostly time in line, the same line for all;
    one connection alone shows what each acknowledgement waits for. With ``stored`` that
    is the store, here one that takes its time for each PUT.
    """
    _in_turns(DURABILITY, directory, options)
    with Store(_PUT_SECONDS) as s3:
        found = _in_turns(stored(s3.url), directory, options)
    print(f"- Store: each PUT takes {_PUT_SECONDS * 1000:.0f} ms; PUTs a second:")
    for contender in found:
        puts = sum(key.startswith(contender.environ["RAW_PREFIX"]) for key in s3.objects)
        print(f"    - {contender.name}: {puts / (options.rounds * options.seconds):.1f}")


def workers(directory: str, options: Namespace) -> None:
    """Hold an event with two workers to one with one.

    They share the DLQ directory, a page of memory and the listener; nothing of an
    event's way is shared, so a second worker should cost little but a rate half as
    high for each, and smaller groups with it.
    """
    found = _in_turns(WORKERS, directory, options)
    one, two = (statistics.median(r.cpu_us for r in rounds) for rounds in found.values())
    print(WORKERS_TARGET.line(WORKERS[1].name, two / one))


def ndjson(directory: str, options: Namespace) -> None:
    """Hold an event of an NDJSON batch to a plain loop that parses, writes and compresses.

    The loop works on the same bodies; what the server adds is HTTP, checks, the
    queue, the journal and the store.
    """
    served: dict[Contender, list[load.Round]] = {contender: [] for contender in NDJSON}
    looped: list[loop.Looped] = []
    with contextlib.ExitStack() as stack:
        serving = [stack.enter_context(servers.serving(one, directory)) for one in NDJSON]
        for number in range(1, options.rounds + 1):
            for each in serving:
                served[each.contender].append(load.run(each, options.seconds))
            looped.append(loop.run(serving[0].requests_path, options.seconds))
            last_ones = [*(rounds[-1] for rounds in served.values()), looped[-1]]
            told = ", ".join(f"{one.cpu_us:.2f}" for one in last_ones)
            report.progress(f"round {number} of {options.rounds}: {told} µs CPU, the loop last")
    last = looped[-1]
    report.describe(
        directory,
        f"Load: {NDJSON[0].events_per_request} events a request, {_load(NDJSON[0], options)}",
        "Plain loop: `ujson.loads` of each line, `ujson.dumps` of the record, "
        f"{last.line_bytes / last.events:.0f} bytes, isal gzip level 2 of 5,000 lines at a time, "
        f"to {last.gzip_bytes / last.events:.0f} bytes; CPU time of its process",
    )
    least = [r.cpu_us for r in looped]
    rows, lines = [("plain loop", report.spread(least, 2), "1.00", "")], []
    for target, (one, rounds) in zip(NDJSON_TARGETS, served.items(), strict=True):
        costs = [r.cpu_us for r in rounds]
        missed = sum(r.refused + r.failed for r in rounds)
        rows.append((one.name, report.spread(costs, 2), report.ratio(costs, least), str(missed)))
        lines.append(target.line(one.name, statistics.median(costs) / statistics.median(least)))
    report.table("what | CPU µs/event | CPU ÷ loop | not 2xx", rows)
    print("\n".join(lines))
    if any(missed != "0" for *_, missed in rows[1:]):
        raise BenchError("not every request was accepted; don't compare this")


def _in_turns(contenders: Sequence[Contender], directory: str, options: Namespace) -> Found:
    """Measure the contenders and print their table. Raises BenchError if one is missing in it."""
    found: Found = {}
    left_out = []
    with contextlib.ExitStack() as stack:
        serving = {}
        for contender in contenders:
            try:
                serving[contender] = stack.enter_context(servers.serving(contender, directory))
                found[contender] = []
            except BenchError as exc:
                left_out.append(report.left_out(contender.name, exc))
        for number in range(1, options.rounds + 1):
            for contender in list(found):
                try:
                    found[contender].append(load.run(serving[contender], options.seconds))
                except BenchError as exc:
                    del found[contender]
                    left_out.append(report.left_out(contender.name, exc))
                else:
                    last = found[contender][-1]
                    costs = f"{last.events_per_second:,.0f} events/s, {last.cpu_us:.1f} µs CPU each"
                    report.progress(
                        f"round {number} of {options.rounds}: {contender.name}: {costs}"
                    )
    event_bytes = statistics.fmean(len(hit.event) for hit in traffic.hits())
    report.describe(
        directory,
        f"Load: {len(traffic.hits()):,} hits of an access log, an event each, {event_bytes:.0f} "
        f"bytes of JSON on average; {_load(contenders[0], options)}",
        "Figures: CPU is user and system time of all of the server's processes; latency is a "
        "request's, at full load",
    )
    _print(found)
    if left_out:
        raise BenchError("\n".join(left_out))
    return found


def _load(contender: Contender, options: Namespace) -> str:
    return (
        f"{contender.connections} keep-alive connections; "
        f"{options.rounds} alternating rounds of {options.seconds} s; median (min-max)"
    )


def _print(found: Found) -> None:
    """Print a row for each contender, and a warning where its figures are not to be compared.

    CPU is held to the first contender, and to the floor where it is one of them.
    """
    costs = {contender: [r.cpu_us for r in rounds] for contender, rounds in found.items()}
    references = {"CPU ÷ first": next(iter(costs.values()), [])}
    if FLOOR in costs:
        references["CPU ÷ floor"] = costs[FLOOR]
    rows = [
        (
            contender.name,
            report.spread((r.events_per_second for r in rounds), 0),
            report.spread(costs[contender], 1),
            *(report.ratio(costs[contender], reference) for reference in references.values()),
            report.spread((r.p50_ms for r in rounds), 2),
            report.spread((r.p99_ms for r in rounds), 2),
            str(sum(r.refused + r.failed for r in rounds)),
        )
        for contender, rounds in found.items()
    ]
    titles = ("contender", "events/s", "CPU µs/event", *references, "p50 ms", "p99 ms", "not 2xx")
    report.table(" | ".join(titles), rows)
    for contender, rounds in found.items():
        refused, failed = sum(r.refused for r in rounds), sum(r.failed for r in rounds)
        if refused + failed:
            print(
                f"**{contender.name}: {refused:,} of {sum(r.answers for r in rounds):,} requests "
                f"were refused and {failed:,} failed on the connection. Their cost is in the CPU "
                "per event; don't compare this row.**\n"
            )
