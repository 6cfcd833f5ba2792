"""Send the events of a file to a server.

The file has JSON lines, or is a web server's access log in the combined
format. Events go over several connections, so in no particular order. A
request that got no answer may be stored or not: it counts as unanswered and
is never sent again, so nothing is stored twice. Exit status: 0 if every line
is an event and every event was accepted, 1 if not, 2 for usage and file
errors, 130 after Ctrl-C.

Example: estat send events.jsonl --url http://127.0.0.1:8080/collect
"""

import argparse
import os
import re
import time
from collections.abc import Iterator
from itertools import islice
from urllib.parse import SplitResult, urlsplit

from estat.cli import output, send_input, send_tally
from estat.cli.arguments import add_number, argument, positive_number
from estat.cli.output import CommandError
from estat.cli.send_pool import Pool
from estat.cli.send_tally import Request, Tally

_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?([/?#][!-~]*)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments."""
    option = parser.add_argument
    option("file", metavar="FILE", help="read JSON lines, plain or gzip; - is standard input")
    default = "http://127.0.0.1:8080/collect"
    url = argument(_http_url, f"a URL such as {default}, percent-encoded, without a user")
    text = "post to URL; ?key=KEY adds a write key [%(default)s]"
    option("--url", type=url, default=default, help=text)
    option(
        "--combined-log",
        action="store_true",
        help="read FILE as an access log in the combined format: each hit is an event, sent with "
        "the hit's User-Agent, and its client address in X-Forwarded-For",
    )
    _add_pace(parser)
    option("--json", action="store_true", help="print the summary as one JSON object")


def _add_pace(parser: argparse.ArgumentParser) -> None:
    """Register the options that say how much is sent at a time, and how often."""
    add_number(parser, "--concurrency", 8, "use N connections", high=512)  # each is a thread
    text = "put at most N events into a request; hits must have the same address and agent for it"
    add_number(parser, "--batch", 1, text)
    add_number(parser, "--limit", None, "stop after N events")
    text = "try a request again at most N times after 429, 503 or without a connection"
    add_number(parser, "--retries", 10, text, low=0)
    seconds = positive_number("a number of seconds up to 3600", 3600)
    text = "wait so long for a connection or an answer [10]"
    parser.add_argument("--timeout", type=seconds, default=10.0, metavar="SECONDS", help=text)


def run(args: argparse.Namespace) -> int:
    """Send the file, print the summary, and return the exit code. Raises CommandError."""
    tally = Tally()
    started = time.monotonic()
    with send_input.open_file(args.file) as file:
        size = os.fstat(file.fileno()).st_size  # 0 of a pipe, which has no position

        def requests() -> Iterator[Request]:
            """Yield the requests, and show how far the file is read."""
            events = send_input.events(file, args.file, args.combined_log, tally)
            for request in send_input.batches(islice(events, args.limit), args.batch):
                yield request
                position = file.tell() if size else 0
                output.progress.update(
                    position, size, lambda: tally.progress(time.monotonic() - started)
                )

        pool = Pool(args.url, args.concurrency, args.retries, args.timeout, tally)
        try:
            pool.post_all(requests())
        except CommandError as exc:
            raise tally.broken_off or exc from None
        finally:
            summary = tally.summary(time.monotonic() - started)
            if args.json:
                output.say_json(summary)
            else:
                output.say(*send_tally.as_lines(summary))
            wrong_place = any(why[:4] in ("404 ", "405 ") for why in summary["refused_by_reason"])
            if wrong_place and args.url.path != "/collect":
                intake = args.url._replace(path="/collect").geturl()
                output.complain("send", f"events are taken at /collect: try --url {intake}")
    if tally.broken_off:
        raise tally.broken_off
    return 0 if tally.complete else 1


def _http_url(text: str) -> SplitResult:
    """Read an http or https URL. Raises ValueError."""
    url = urlsplit(text)
    if not _URL.fullmatch(text) or url.port == 0:
        raise ValueError
    return url
