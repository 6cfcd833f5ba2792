"""An outage under a steady load, seen by a Prometheus through the dashboard's expressions.

The server, its load and the Prometheus are real; S3 is ``store``. What comes out are the
numbers that Grafana would draw, and nothing of the events.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bench import report, servers, store, traffic
from bench.contenders import Contender, incident
from bench.errors import BenchError
from bench.scrape import Scraper
from tests.support import dashboard
from tests.support.prometheus import Prometheus, Series

#: Settings of the server that the dashboard asks for, and what Grafana would put in for
#: a scrape interval of three seconds and a graph of a few minutes.
FLUSH_INTERVAL_SECONDS = 2
DLQ_MAX_SIZE_BYTES = 64 * 1024 * 1024
DLQ_MAX_AGE_SECONDS = 600
STEP_SECONDS = 3

_REQUESTS_PER_SECOND = 300
_EVENTS_PER_REQUEST = 10
#: One request in so many is no JSON, or of another type, so that there is something to refuse.
_BROKEN_IN, _ODD_IN = 150, 333
_PUT_SECONDS = 0.03

_WARM_UP_SECONDS = 30
_BEFORE_SECONDS = 80
_OUTAGE_SECONDS = 60
_AFTER_SECONDS = 100
_PATIENCE_SECONDS = 60


class Found(NamedTuple):
    """What the expressions found, by how they are written in the dashboard."""

    start: float
    end: float
    courses: dict[str, list[Series]]
    values: dict[str, str]


def run(directory: str) -> Found:
    """Have an incident in an empty directory. Raises BenchError."""
    if not shutil.which("prometheus"):
        raise BenchError("prometheus is not installed (on Debian: apt-get install prometheus)")
    with store.Store(_PUT_SECONDS) as s3:
        contender = incident(
            s3.url, _EVENTS_PER_REQUEST,
            FLUSH_INTERVAL=f"{FLUSH_INTERVAL_SECONDS}s",
            DLQ_MAX_SIZE_BYTES=str(DLQ_MAX_SIZE_BYTES),
            DLQ_MAX_AGE=f"{DLQ_MAX_AGE_SECONDS}s",
        )  # fmt: skip
        requests = _requests(directory, contender)
        with (
            servers.running(contender.server, directory) as running,
            Scraper(running.port) as scraper,
            Prometheus(Path(directory), running.port) as prometheus,
        ):
            start, end = _course(s3, contender, running, requests, scraper)
            return _seen(prometheus, start, end)


def _requests(directory: str, contender: Contender) -> str:
    contents = traffic.requests(traffic.read_hits(directory), contender)
    for number in range(0, len(contents), _BROKEN_IN):
        head, _, body = contents[number].partition(b"\r\n\r\n")
        contents[number] = head + b"\r\n\r\n" + b"{" * len(body)
    for number in range(1, len(contents), _ODD_IN):
        contents[number] = contents[number].replace(b"application/x-ndjson", b"image/png", 1)
    path = os.path.join(directory, "requests")
    traffic.write(path, contents)
    return path


def _course(
    s3: store.Store, contender: Contender, running: servers.Running, requests: str,
    scraper: Scraper,
) -> tuple[float, float]:  # fmt: skip
    """Return when it began and when it was over."""
    seconds = _WARM_UP_SECONDS + _BEFORE_SECONDS + _OUTAGE_SECONDS + _AFTER_SECONDS + 10
    load = subprocess.Popen(
        [sys.executable, "-m", "bench.driver", str(running.port), requests,
         str(_REQUESTS_PER_SECOND), str(seconds), str(contender.connections)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        time.sleep(_WARM_UP_SECONDS)
        start = time.time()
        time.sleep(_BEFORE_SECONDS)
        report.progress("S3 is down")
        s3.fail("503")
        time.sleep(_OUTAGE_SECONDS)
        s3.heal()
        report.progress("S3 is back")
        time.sleep(_AFTER_SECONDS)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while scraper.sample().dlq_files and time.monotonic() < deadline:
            time.sleep(1)
        end = time.time()
        if load.poll() is not None:
            raise BenchError("the load ended before the incident")
        output, _ = load.communicate(timeout=_PATIENCE_SECONDS)
    finally:
        load.kill()
        load.wait()
    driven = json.loads(output)
    report.progress(f"{driven['requests']} requests, {driven['unanswered']} unanswered")
    return start, end


def _seen(prometheus: Prometheus, start: float, end: float) -> Found:
    values = {
        "job": "estat",
        "instance": ".+",
        "window": "15s",
        "__rate_interval": f"{4 * STEP_SECONDS}s",
        "__range": f"{end - start:.0f}s",
        "flush_interval": str(FLUSH_INTERVAL_SECONDS),
        "dlq_max_size": str(DLQ_MAX_SIZE_BYTES),
        "dlq_max_age": str(DLQ_MAX_AGE_SECONDS),
    }
    courses = {
        expression: prometheus.course(
            dashboard.filled_in(expression, values), start, end, STEP_SECONDS
        )
        for expression in dashboard.expressions()
    }
    return Found(start, end, courses, values)
