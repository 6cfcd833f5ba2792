"""One contender, ready for load: its server runs, its requests are made, its answers are right."""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from bench import report, servers, traffic
from bench.contenders import Contender
from bench.errors import BenchError


class Prepared(NamedTuple):
    """What load is sent to, and what is sent."""

    running: servers.Running
    requests_path: str
    contents: list[bytes]


@contextlib.contextmanager
def serving(contender: Contender, hits: list[traffic.Hit], directory: str) -> Iterator[Prepared]:
    """Run a contender's server in a directory below an existing one. Raises BenchError."""
    own = os.path.join(directory, contender.server.name)
    os.mkdir(own)
    contents = traffic.requests(hits, contender)
    path = os.path.join(own, "requests")
    traffic.write(path, contents)
    report.progress(f"starting {contender.name}")
    with servers.running(contender.server, own) as running:
        if servers.check(contender, running.port, contents):
            raise BenchError(f"{contender.name}: requests were refused one at a time already")
        yield Prepared(running, path, contents)
