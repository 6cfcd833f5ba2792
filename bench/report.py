"""The report: what it was measured on, and one row per contender, in Markdown."""

import os
import platform
import statistics
from collections.abc import Iterable
from importlib import metadata

from bench.contenders import Contender
from bench.load import CONNECTIONS, Round

_LIBRARIES = ("gunicorn", "gevent", "falcon", "ujson", "isal", "estat-ingest")


def machine(wrk_version: str) -> str:
    """Describe what the figures depend on."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    load = os.getloadavg()[0]
    return (
        f"- Machine: {_cpu_model()}, {len(os.sched_getaffinity(0))} cores, "
        f"Linux {platform.release()}, load average {load:.1f} before the run\n"
        f"- Python {platform.python_version()}; {versions}; wrk {wrk_version}"
    )


def traffic(hits: int, event_bytes: float, rounds: int, seconds: int) -> str:
    """Describe what was sent."""
    return (
        f"- Load: {hits:,} hits of an access log, an event each, {event_bytes:.0f} bytes of JSON "
        f"on average; {CONNECTIONS} keep-alive connections; {rounds} alternating rounds of "
        f"{seconds} s\n"
        f"- Figures: median (min-max) over the rounds; CPU is user and system time of all of the "
        f"server's processes; latency is a request's, at full load"
    )


def table(results: dict[Contender, list[Round]]) -> str:
    """Return the table, and a warning for each contender whose figures are not to be compared."""
    reference = next(iter(results.values()))
    lines = [
        "| contender | events/s | CPU µs/event | CPU ÷ first | p50 ms | p99 ms | not 2xx |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    warnings = []
    for contender, rounds in results.items():
        cells = [
            contender.name,
            _spread((r.events_per_second for r in rounds), 0),
            _spread((r.cpu_us for r in rounds), 1),
            _ratio(rounds, reference),
            _spread((r.p50_ms for r in rounds), 1),
            _spread((r.p99_ms for r in rounds), 1),
            str(sum(r.refused + r.failed for r in rounds)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
        warnings += _warning(contender, rounds)
    return "\n".join(lines + warnings)


def _ratio(rounds: list[Round], reference: list[Round]) -> str:
    """Divide the medians; the spread is over the pairs of one round, which drift together."""
    ratio = _median_cpu(rounds) / _median_cpu(reference)
    pairs = [a.cpu_us / b.cpu_us for a, b in zip(rounds, reference, strict=True)]
    return f"{ratio:.2f} ({min(pairs):.2f}-{max(pairs):.2f})"


def _median_cpu(rounds: list[Round]) -> float:
    return statistics.median(r.cpu_us for r in rounds)


def _spread(values: Iterable[float], digits: int) -> str:
    found = sorted(values)
    low, high = found[0], found[-1]
    return f"{statistics.median(found):,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


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
