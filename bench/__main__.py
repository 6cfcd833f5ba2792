"""``python -m bench``: starts every server, measures the contenders in turns, prints the report."""

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
from types import FrameType

from bench import load, report, servers, traffic
from bench.contenders import CONTENDERS, Contender, Server
from bench.errors import BenchError


def main() -> int:
    """Run the benchmark; return the exit status."""
    arguments = _arguments()
    wrk_version = load.wrk_version()
    if wrk_version is None:
        print("bench: wrk is not installed (on Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    # a terminated run must stop its servers too
    signal.signal(signal.SIGTERM, _terminated)
    print(report.machine(wrk_version), flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            _run(directory, arguments.rounds, arguments.seconds)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


def _run(directory: str, rounds: int, seconds: int) -> None:
    hits = traffic.read_hits(directory)
    event_bytes = statistics.fmean(len(hit.event) for hit in hits)
    results: dict[Contender, list[load.Round]] = {contender: [] for contender in CONTENDERS}
    paths: dict[Contender, str] = {}
    running: dict[Server, servers.Running] = {}
    with contextlib.ExitStack() as stack:
        for number, contender in enumerate(CONTENDERS):
            server = contender.server
            if server not in running:
                _progress(f"starting {server.name}")
                own = os.path.join(directory, server.name)
                os.mkdir(own)
                running[server] = stack.enter_context(servers.running(server, own))
            contents = traffic.requests(hits, contender)
            paths[contender] = os.path.join(directory, f"requests-{number}")
            traffic.write(paths[contender], contents)
            _progress(f"checking and warming up: {contender.name}")
            refused = servers.check(contender, running[server].port, contents)
            if refused:
                _progress(f"refused already, one at a time: {refused} of {len(contents)} requests")
        # all of them stay up to the end: a round never pays for a start
        for number in range(1, rounds + 1):
            for contender in CONTENDERS:
                found = load.run(contender, running[contender.server], paths[contender], seconds)
                results[contender].append(found)
                _progress(
                    f"round {number} of {rounds}: {contender.name}: "
                    f"{found.events_per_second:,.0f} events/s, {found.cpu_us:.1f} µs CPU per event"
                )
    print(report.traffic(len(hits), event_bytes, rounds, seconds))
    print()
    print(report.table(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure this server.")
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="rounds of each contender (default: 5)"
    )
    parser.add_argument(
        "--seconds", type=_positive, default=4, help="length of a round (default: 4)"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _terminated(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(143)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
