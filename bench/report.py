"""The report: what it was measured on, and tables of what was found, in Markdown."""

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata

from bench.contenders import Contender
from bench.disk import FileSystem
from bench.load import Round

_LIBRARIES = ("gunicorn", "gevent", "falcon", "orjson", "isal", "estat-ingest")


def progress(line: str) -> None:
    """Tell the person who waits for the report what is going on."""
    print(line, file=sys.stderr, flush=True)


def machine(wrk_version: str | None) -> str:
    """Describe what the figures depend on."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    if wrk_version:
        versions += f"; wrk {wrk_version}"
    load = os.getloadavg()[0]
    return (
        f"- Machine: {_cpu_model()}, {len(os.sched_getaffinity(0))} cores, "
        f"Linux {platform.release()}, load average {load:.1f} before the run\n"
        f"- Python {platform.python_version()}; {versions}"
    )


def traffic(hits: int, event_bytes: float, connections: int, rounds: int, seconds: int) -> str:
    """Describe what was sent."""
    return (
        f"- Load: {hits:,} hits of an access log, an event each, {event_bytes:.0f} bytes of JSON "
        f"on average; {connections} keep-alive connections where nothing else is said; {rounds} "
        f"alternating rounds of {seconds} s\n"
        f"- Figures: median (min-max) over the rounds; CPU is user and system time of all of the "
        f"server's processes; latency is a request's, at full load"
    )


def dlq_disk(found: FileSystem) -> str:
    """Describe what the DLQ was on."""
    warning = "; **that is memory: a sync costs nothing there**" if found.in_memory else ""
    return f"- DLQ_DIR: {found.kind} on {found.device}{warning}"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table; the first columns, so many, hold texts, the others figures."""
    rules = ["---" if number < texts else "--:" for number in range(len(titles))]
    lines = [f"| {' | '.join(titles)} |", f"|{'|'.join(rules)}|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def contenders(
    results: dict[Contender, list[Round]], more_references: dict[str, Contender] | None = None
) -> str:
    """Return the table, and a warning for each contender whose figures are not to be compared.

    CPU is held to the first contender, and to those with a title of their own.
    """
    if not results:
        return "No contender served."
    references = {"CPU ÷ first": next(iter(results.values()))}
    for title, contender in (more_references or {}).items():
        if contender in results:
            references[title] = results[contender]
    titles = (
        "contender", "events/s", "CPU µs/event", *references, "p50 ms", "p99 ms", "not 2xx"
    )  # fmt: skip
    rows = []
    warnings = []
    for contender, rounds in results.items():
        rows.append(
            (
                contender.name,
                spread((r.events_per_second for r in rounds), 0),
                spread((r.cpu_us for r in rounds), 1),
                *(_ratio(rounds, reference) for reference in references.values()),
                spread((r.p50_ms for r in rounds), 2),
                spread((r.p99_ms for r in rounds), 2),
                str(sum(r.refused + r.failed for r in rounds)),
            )
        )
        warnings += _warning(contender, rounds)
    return "\n".join([table(titles, rows), *warnings])


def left_out(failed: dict[str, str]) -> str:
    """Return why rows are missing."""
    return "\n".join(f"left out: {name}: {why}" for name, why in failed.items())


def other_cores(found: float) -> str:
    """Describe what else ran meanwhile."""
    # two sources in ticks: their difference may fall a tick below nothing
    found = max(0.0, found)
    return f"- Other processes used {found:.2f} cores meanwhile, on average"


def spread(values: Iterable[float], digits: int) -> str:
    """Return the median, and between what the values lie."""
    found = sorted(values)
    low, high = found[0], found[-1]
    return f"{statistics.median(found):,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def _ratio(rounds: list[Round], reference: list[Round]) -> str:
    """Divide the medians; the spread is over the pairs of one round, which drift together."""
    ratio = _median_cpu(rounds) / _median_cpu(reference)
    pairs = [a.cpu_us / b.cpu_us for a, b in zip(rounds, reference, strict=True)]
    return f"{ratio:.2f} ({min(pairs):.2f}-{max(pairs):.2f})"


def _median_cpu(rounds: list[Round]) -> float:
    return statistics.median(r.cpu_us for r in rounds)


def _warning(contender: Contender, rounds: list[Round]) -> list[str]:
    refused, failed = sum(r.refused for r in rounds), sum(r.failed for r in rounds)
    if not refused + failed:
        return []
    answers = sum(r.answers for r in rounds)
    warning = (
        f"**{contender.name}: {refused:,} of {answers:,} requests were refused and {failed:,} "
        "failed on the connection. Their cost is in the CPU per event; don't compare this row.**"
    )
    return ["", warning]


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()  # arm64 names no model
