"""``python -m bench``: runs the measurements asked for, all by default, and prints the report."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench import BenchError, attack, cost, latency, load, machine, memory, outage, recovery, start
from bench.contenders import DURABILITIES
from estat.cli.arguments import add_number


class Measurement(NamedTuple):
    """One section of the report; the first line of its docstring is its help."""

    #: Takes an empty directory and the command line's options, prints its report, and returns
    #: what the method of ``charts.Charts`` with its name draws.
    run: Callable[[str, argparse.Namespace], Any]
    drawn: bool = False
    needs_wrk: bool = True


#: In the order of the report.
MEASUREMENTS = {
    "overhead": Measurement(cost.overhead, drawn=True),
    "durability": Measurement(cost.durability),
    "ndjson": Measurement(cost.ndjson),
    "latency": Measurement(latency.run, drawn=True),
    "replay": Measurement(latency.replay),
    "neighbours": Measurement(attack.run, needs_wrk=False),
    "workers": Measurement(cost.workers),
    "start": Measurement(start.run, needs_wrk=False),
    "outage": Measurement(outage.run, drawn=True),
    "recovery": Measurement(recovery.run, needs_wrk=False),
    "takeover": Measurement(recovery.takeover, needs_wrk=False),
    "memory": Measurement(memory.run, drawn=True),
}


def main() -> int:
    """Run the benchmark; return the exit status."""
    options = _options()
    chosen = options.measurements or list(MEASUREMENTS)
    # a terminated run must stop its servers too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        wrk_version = load.wrk_version()
        if wrk_version is None and any(MEASUREMENTS[name].needs_wrk for name in chosen):
            raise BenchError("wrk is not installed (on Debian: apt-get install wrk)")
        print(machine.describe(wrk_version), flush=True)
        place = machine.directory(options.directory)
        charts = options.charts and _charts(options.charts)
        done = [_measure(name, place, options, charts) for name in chosen]
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0 if all(done) else 1


def _measure(name: str, place: str, options: argparse.Namespace, charts: Any) -> bool:
    """Print one section; tell whether it is whole. The other ones have their own servers."""
    print(f"\n## {name}\n", flush=True)
    started, others = time.monotonic(), machine.others_cpu_seconds()
    whole = True
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as directory:
            found = MEASUREMENTS[name].run(directory, options)
        if charts and MEASUREMENTS[name].drawn:
            getattr(charts, name)(found)
    except BenchError as exc:
        whole = False
        print(f"bench: {name}: {exc}", file=sys.stderr)
    # two sources in ticks: their difference may fall a tick below nothing
    others = max(0.0, machine.others_cpu_seconds() - others) / (time.monotonic() - started)
    print(f"\n- Other processes used {others:.2f} cores meanwhile, on average", flush=True)
    return whole


def _options() -> argparse.Namespace:
    listed = [f"  {name:12}{_help(one)}" for name, one in MEASUREMENTS.items()]
    drawn = ", ".join(name for name, one in MEASUREMENTS.items() if one.drawn)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure this server; the report goes to standard output.\n\n"
        + "\n".join(["measurements:", *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("measurements", nargs="*", choices=MEASUREMENTS, metavar="MEASUREMENT", help="default: all")
    for name, default, text in (
        ("rounds", 5, "rounds of each contender"),
        ("seconds", 4, "length of a round"),
        ("outage-seconds", 15, "length of an outage"),
        ("events-per-request", 1, "size of the requests in an outage"),
        ("mebibytes", 1024, "size of the journals to recover"),
        ("files", 100_000, "DLQ files to take over"),
        ("minutes", 10, "how long memory is watched"),
        ("dlq-mebibytes", 4096, "DLQ_MAX_SIZE_BYTES while memory is watched"),
    ):
        add_number(parser, f"--{name}", default, text)
    add("--durability", choices=DURABILITIES, default="journal", help="in an outage (journal)")
    add("--charts", metavar="DIR", help=f"write charts of {drawn} there, as SVG (extra: bench)")
    add("--directory", metavar="DIR", help="where files are made (a temporary one on a disk)")
    return parser.parse_args()


def _help(measurement: Measurement) -> str:
    text: str = measurement.run.__doc__ or ""
    return text.partition("\n")[0].removesuffix(".")


def _charts(directory: str) -> Any:
    """Return what draws. Raises BenchError."""
    try:
        # an extra of its own, which whoever wants tables alone can do without
        from bench.charts import Charts  # noqa: PLC0415
    except ImportError as exc:
        raise BenchError(f"--charts: {exc}; pip install -e '.[bench]'") from exc
    return Charts(directory)


if __name__ == "__main__":
    sys.exit(main())
