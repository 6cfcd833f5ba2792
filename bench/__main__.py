"""``python -m bench``: runs the measurements asked for, all by default, and prints the report."""

import argparse
import signal
import sys
import tempfile
import time
from types import FrameType

from bench import cpu, disk, durability, load, outage, overhead, recovery, report, scan
from bench.contenders import DURABILITIES
from bench.errors import BenchError

_MEASUREMENTS = ("overhead", "durability", "scan", "outage", "recovery")
_WITHOUT_LOAD = ("scan", "recovery")


def main() -> int:
    """Run the benchmark; return the exit status."""
    arguments = _arguments()
    chosen = arguments.measurements or _MEASUREMENTS
    wrk_version = load.wrk_version()
    if wrk_version is None and not set(chosen) <= set(_WITHOUT_LOAD):
        print("bench: wrk is not installed (on Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    # a terminated run must stop its servers too
    signal.signal(signal.SIGTERM, _terminated)
    print(report.machine(wrk_version), flush=True)
    status = 0
    try:
        place = disk.choose(arguments.directory)
        for name in chosen:
            print(f"\n## {name}\n", flush=True)
            with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as directory:
                started, others = time.monotonic(), cpu.others_seconds()
                try:
                    _run(name, directory, arguments)
                except BenchError as exc:
                    # the other measurements have their own servers
                    print(f"bench: {name}: {exc}", file=sys.stderr)
                    status = 1
                others = (cpu.others_seconds() - others) / (time.monotonic() - started)
            print(f"\n{report.other_cores(others)}", flush=True)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return status


def _run(name: str, directory: str, arguments: argparse.Namespace) -> None:
    match name:
        case "overhead":
            overhead.run(directory, arguments.rounds, arguments.seconds)
        case "durability":
            durability.run(directory, arguments.rounds, arguments.seconds)
        case "scan":
            scan.run(directory)
        case "outage":
            outage.run(
                directory,
                arguments.durability,
                arguments.outage_seconds,
                arguments.events_per_request,
            )
        case "recovery":
            recovery.run(directory, arguments.mebibytes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure this server.")
    parser.add_argument(
        "measurements", nargs="*", type=_measurement, metavar="MEASUREMENT",
        help=f"what to measure: {', '.join(_MEASUREMENTS)} (default: all)",
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
        "--directory", help="where files are made (default: a temporary directory on a disk)"
    )
    return parser.parse_args()


def _measurement(text: str) -> str:
    if text not in _MEASUREMENTS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(_MEASUREMENTS)}")
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
