"""``estat send``: posts the events of a file to a server.

Reads JSON lines, or a web server's access log in the combined format. Events are
posted over several connections, so in no particular order. What can't be told
from the outside is not guessed: a request that got no answer is counted as
unanswered and never sent again, so nothing is stored twice on account of this
command.
"""

import argparse
import json
import math
import sys
import time

from estat.cli import send_tally
from estat.cli.http_post import Target
from estat.cli.progress import ProgressBar
from estat.cli.send_input import Input, InputError
from estat.cli.send_pool import Pool
from estat.cli.send_tally import Tally

#: Connections, at most: each is a thread.
_MAX_CONCURRENCY = 512


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "send",
        help="send the events of a file to a server",
        description="Sends the events of a file to a server and counts what becomes of each. "
        "Exit status: 0 if every line is an event and every event was accepted, 1 if not, "
        "2 for usage and file errors, 130 after Ctrl-C.",
    )
    option = parser.add_argument
    option("file", metavar="FILE", help="JSON lines, plain or gzip; - is standard input")
    option("--url", type=_target, default="http://127.0.0.1:8080/collect", help="%(default)s")
    option(
        "--combined-log",
        action="store_true",
        help="FILE is an access log in the combined format: each hit is an event, sent with the "
        "hit's User-Agent and its client address in X-Forwarded-For",
    )
    option("--concurrency", type=_concurrency, default=8, metavar="N", help="connections [8]")
    option(
        "--batch",
        type=_positive,
        default=1,
        metavar="N",
        help="events in a request, at most [1]; with --combined-log only consecutive hits with "
        "the same address and agent share a request",
    )
    option("--limit", type=_positive, metavar="N", help="stop after N events")
    option(
        "--retries",
        type=_not_negative,
        default=10,
        metavar="N",
        help="further attempts after 429, 503 or a connection that can't be opened [10]",
    )
    option(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for a connection or an answer [10]",
    )
    option("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send the file, print the summary, and return the exit code."""
    tally = Tally()
    unreachable: str | None = None
    started = time.monotonic()
    try:
        with Input(args.file) as source:
            bar = ProgressBar(sys.stderr, source.size_bytes)

            def tick() -> None:
                bar.update(
                    source.position_bytes, lambda: tally.progress(time.monotonic() - started)
                )

            pool = Pool(args.url, args.concurrency, args.retries, args.timeout, tally, tick)
            try:
                pool.run(source.requests(tally, args.combined_log, args.batch, args.limit))
            finally:
                bar.close()
            interrupted, unreachable = pool.interrupted, pool.unreachable
    except KeyboardInterrupt:
        interrupted = True  # before the first request, or once more while stopping
    except InputError as exc:
        if tally.read:
            _print_summary(tally, time.monotonic() - started, args.json)
        _complain(exc)
        return 2
    _print_summary(tally, time.monotonic() - started, args.json)
    if interrupted:
        return 130
    if unreachable is not None:
        _complain(unreachable)
    return 0 if tally.complete else 1


def _print_summary(tally: Tally, seconds: float, as_json: bool) -> None:
    summary = tally.summary(seconds)
    sys.stdout.write(json.dumps(summary) + "\n" if as_json else send_tally.as_text(summary))
    sys.stdout.flush()


def _complain(problem: object) -> None:
    sys.stderr.write(f"estat send: {problem}\n")


def _target(text: str) -> Target:
    try:
        return Target.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _whole(text: str, low: int, high: float) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not low <= number <= high:
        bounds = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
    return number


def _positive(text: str) -> int:
    return _whole(text, 1, math.inf)


def _not_negative(text: str) -> int:
    return _whole(text, 0, math.inf)


def _concurrency(text: str) -> int:
    return _whole(text, 1, _MAX_CONCURRENCY)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 3600")
    return seconds
