"""Two servers with the same settings: one with the server's own worker, one with gunicorn's.

COMPILED names a directory with the compiled build, from which the former runs; INTERPRETED names an
interpreted checkout for the latter. With one of them the two builds are compared as well.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from estat import build
from tests.support import http_corpus
from tests.support.eventually import eventually
from tests.support.lines import gunzip_lines
from tests.support.raw_http import Answer, Outcome, Pulse
from tests.support.server import Server

_CONFIG = Path(__file__).parent / "environ_conf.py"

_LINE, _FIELD = http_corpus.MAX_LINE, http_corpus.MAX_FIELD
_LIMITS = f"--limit-request-line {_LINE} --limit-request-field_size {_FIELD}"

#: What only the server's own worker can count.
_OWN = 'http_requests_rejected_total{reason="malformed"}'

_COUNTED = (
    "http_requests_total",
    "http_requests_accepted_total",
    "http_requests_rejected_total",
    "http_requests_queue_full_total",
    "events_accepted_total",
    "events_rejected_total",
)

_COMPILED, _INTERPRETED = (os.environ.get(name, "") for name in ("COMPILED", "INTERPRETED"))
_BUILD = "compiled" if _COMPILED else build()

_BYTES_READ = re.compile(rb"(?<=Request Line is too large \()[0-9]+")


class Side(NamedTuple):
    """One of the two servers."""

    server: Server
    store: Path
    pulse: Pulse

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def build(self) -> str:
        build: str = self.server.events("server_started")[0]["build"]
        return build

    def counts(self) -> dict[str, float]:
        samples = self.server.metrics()
        return {
            name: value
            for name, value in samples.items()
            if name.startswith(_COUNTED) and name != _OWN
        }

    def stored(self) -> Counter[str]:
        """Return how often each event is stored, with all of its fields that are the client's."""
        self.server.until(self.server.settled, "everything is stored")
        found: Counter[str] = Counter()
        for path in self.store.rglob("*.jsonl.gz"):
            for line in gunzip_lines(path.read_bytes()):
                client = {key: line[key] for key in line if key not in ("id", "ts")}
                found[json.dumps(client, sort_keys=True)] += 1
        return found


class Pair(NamedTuple):
    """The server's own worker and the stock worker."""

    own: Side
    stock: Side

    @contextmanager
    def counting_alike(self) -> Iterator[None]:
        """Check that what is done meanwhile is counted on both sides alike."""
        before = [side.counts() for side in self]
        yield

        def check() -> bool:
            own, stock = (
                {name: value - old.get(name, 0) for name, value in side.counts().items()}
                for side, old in zip(self, before, strict=True)
            )
            assert own == stock
            return True

        eventually(check, 5, "both sides counted the same")


@contextmanager
def running(new_directory: Callable[[], Path]) -> Iterator[Pair]:
    """Run both servers, each in a directory of its own."""
    with ExitStack() as started:
        sides = []
        for gunicorn, expected, root, kind in (
            ("", "estat.server.worker.EstatWorker", _COMPILED, _BUILD),
            ("--worker-class gevent", "gevent", _INTERPRETED, "interpreted"),
        ):
            directory = new_directory()
            settings = {
                "RAW_BUCKET": f"file:{directory / 'store'}",
                "DURABILITY": "memory",
                "READ_TIMEOUT": "10m",
                "KEEPALIVE": "1h",
                "MAX_BODY_SIZE": str(http_corpus.MAX_EVENT),
                "MAX_BATCH_BODY_SIZE": str(http_corpus.MAX_BODY),
                "CAPTURE_HEADERS": "referer,cookie",
                "CAPTURE_QUERY": "true",
                "FALLBACK_CHARSET": "cp949",
                "CHANNEL_SIZE": "100000",
                "UPLOAD_QUEUE": "1000",
                "BATCH_SIZE": "10000",
                "FLUSH_INTERVAL": "500ms",
                "LOG_LEVEL": "info",
                **({"PYTHONPATH": root} if root else {}),
            }
            options = f"{gunicorn} {_LIMITS}"
            server = Server(directory, settings, gunicorn=options, config=_CONFIG)
            started.enter_context(server)
            assert _worker_class(server) == expected
            pulse = started.enter_context(Pulse(server.port))
            sides.append(Side(server, directory / "store", pulse))
            assert sides[-1].build == kind
        yield Pair(*sides)


def _worker_class(server: Server) -> str:
    (line,) = (line for line in server.logs() if "Using worker" in json.dumps(line))
    return json.dumps(line).rpartition("Using worker: ")[2].partition('"')[0]


def comparable(outcome: Outcome, *, at_once: bool = False) -> tuple[list[Answer], bytes, bool]:
    """Return what must be the same on both sides: all but the numbers of /metrics.

    What a page of gunicorn's says about a bad request depends on how much of that had
    arrived. Of bytes that are read at once nothing is left to come; then only the page
    about a line that is too long differs, by the number of bytes that were read: they
    may begin with the request before that line on one side, and at the line on the other.
    """
    answers = []
    for answer in outcome.answers:
        counters = answer.field(b"Content-Type").startswith(b"text/plain; version")
        page = answer.field(b"Content-Type") == b"text/html"
        if counters or (page and not at_once):
            answers.append(answer.without_body())
        elif page and answer.status == 414:
            text = _BYTES_READ.sub(b"any", answer.body)
            answers.append(answer.without_body()._replace(body=text))
        else:
            answers.append(answer)
    return answers, outcome.rest, outcome.closed
