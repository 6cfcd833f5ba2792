"""``estat send``: posts the events of a file to a server.

Reads JSON lines, or a web server's access log in the combined format. Events are posted
over several connections, so in no particular order. A request that got no answer may be
stored or not: it is counted as unanswered and never sent again, so this command stores
nothing twice.
"""

import argparse
import json
import sys
import time
from contextlib import closing

from estat.cli import send_tally
from estat.cli.arguments import positive_number, whole_number
from estat.cli.http_post import Target, UnreachableError
from estat.cli.problems import complain
from estat.cli.progress import ProgressBar
from estat.cli.send_input import Input, InputError
from estat.cli.send_pool import Pool
from estat.cli.send_tally import Tally


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
    _add_pace(parser)
    option("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=run)


def _add_pace(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    # each connection is a thread
    option(
        "--concurrency", type=whole_number(1, 512), default=8, metavar="N", help="connections [8]"
    )
    option(
        "--batch",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="events in a request, at most [1]; with --combined-log only consecutive hits with "
        "the same address and agent share a request",
    )
    option("--limit", type=whole_number(1), metavar="N", help="stop after N events")
    option(
        "--retries",
        type=whole_number(0),
        default=10,
        metavar="N",
        help="further attempts after 429, 503 or a connection that can't be opened [10]",
    )
    option(
        "--timeout",
        type=positive_number("a number of seconds up to 3600", 3600),
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for a connection or an answer [10]",
    )


def run(args: argparse.Namespace) -> int:
    """Send the file, print the summary, and return the exit code."""
    tally = Tally()
    problem: Exception | None = None
    started = time.monotonic()
    try:
        with Input(args.file) as source, closing(ProgressBar(sys.stderr)) as bar:

            def tick() -> None:
                seconds = time.monotonic() - started
                bar.update(
                    source.position_bytes, source.size_bytes, lambda: tally.progress(seconds)
                )

            pool = Pool(args.url, args.concurrency, args.retries, args.timeout, tally, tick)
            pool.post_all(source.requests(tally, args.combined_log, args.batch, args.limit))
        code = 0 if tally.complete else 1
    except KeyboardInterrupt:
        code = 130
    except UnreachableError as exc:
        code, problem = 1, exc
    except InputError as exc:
        code, problem = 2, exc
    if code != 2 or tally.read:
        summary = tally.summary(time.monotonic() - started)
        text = json.dumps(summary) + "\n" if args.json else send_tally.as_text(summary)
        print(text, end="", flush=True)
    if problem:
        complain("send", [str(problem)])
    return code


def _target(text: str) -> Target:
    try:
        return Target.from_url(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
