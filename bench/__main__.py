"""``python -m bench``: runs the measurements asked for, all by default, and prints the report."""

import argparse
import signal
import sys
import tempfile
import time
from types import FrameType
from typing import Any

from bench import disk, load, machine, report
from bench.contenders import DURABILITIES
from bench.errors import BenchError
from bench.measurements import MEASUREMENTS


def main() -> int:
    """Run the benchmark; return the exit status."""
    arguments = _arguments()
    chosen = arguments.measurements or list(MEASUREMENTS)
    wrk_version = load.wrk_version()
    if wrk_version is None and any(MEASUREMENTS[name].needs_wrk for name in chosen):
        print("bench: wrk is not installed (on Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    # a terminated run must stop its servers too
    signal.signal(signal.SIGTERM, _terminated)
    print(report.machine(wrk_version), flush=True)
    status = 0
    try:
        place = disk.choose(arguments.directory)
        charts = _charts(arguments.charts)
        for name in chosen:
            print(f"\n## {name}\n", flush=True)
            with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as directory:
                started, others = time.monotonic(), machine.others_seconds()
                try:
                    found = MEASUREMENTS[name].run(directory, arguments)
                    chart = MEASUREMENTS[name].chart
                    if charts and chart:
                        getattr(charts, chart)(found)
                except BenchError as exc:
                    # the other measurements have their own servers
                    print(f"bench: {name}: {exc}", file=sys.stderr)
                    status = 1
                others = (machine.others_seconds() - others) / (time.monotonic() - started)
            print(f"\n{report.other_cores(others)}", flush=True)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return status


def _arguments() -> argparse.Namespace:
    listed = "\n".join(f"  {name:12}{one.help}" for name, one in MEASUREMENTS.items())
    drawn = [name for name, one in MEASUREMENTS.items() if one.chart]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"Measure this server; the report goes to standard output.\n\n"
        f"measurements:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "measurements", nargs="*", type=_measurement, metavar="MEASUREMENT",
        help="what to measure (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="rounds of each contender (default: 5)"
    )
    parser.add_argument(
        "--seconds", type=_positive, default=4, help="length of a round (default: 4)"
    )
    parser.add_argument(
        "--outage-seconds", type=_positive, default=15, help="length of an outage (default: 15)"
    )
    parser.add_argument(
        "--events-per-request", type=_positive, default=1, metavar="EVENTS",
        help="size of the requests in an outage (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--mebibytes", type=_positive, default=1024, metavar="MIB",
        help="size of the journals to recover (default: 1024)",
    )  # fmt: skip
    parser.add_argument(
        "--durability", choices=DURABILITIES, default="journal",
        help="DURABILITY in an outage (default: journal)",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=_positive, default=10,
        help="how long memory is watched (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--dlq-mebibytes", type=_positive, default=4096, metavar="MIB",
        help="DLQ_MAX_SIZE_BYTES while memory is watched (default: 4096)",
    )  # fmt: skip
    parser.add_argument(
        "--charts", metavar="DIRECTORY",
        help=f"write charts there, as SVG: {', '.join(drawn)} (needs the extra 'bench')",
    )  # fmt: skip
    parser.add_argument(
        "--directory", help="where files are made (default: a temporary directory on a disk)"
    )
    return parser.parse_args()


def _charts(directory: str | None) -> Any:
    """Return what draws; None if nothing is to be drawn. Raises BenchError."""
    if directory is None:
        return None
    try:
        # an extra of its own, which whoever wants tables alone can do without
        from bench.charts import Charts  # noqa: PLC0415
    except ImportError as exc:
        raise BenchError(f"--charts: {exc}; pip install -e '.[bench]'") from exc
    return Charts(directory)


def _measurement(text: str) -> str:
    if text not in MEASUREMENTS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(MEASUREMENTS)}")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _terminated(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
