"""Loggers of Node as their users run them: the lines of docs/senders.md, and then log lines."""

import json
import os
import re
import shutil
from collections import Counter

import pytest

from tests.conftest import Serve
from tests.senders.documented import SENDERS, Sender
from tests.senders.program import Program
from tests.support.s3 import Bucket
from tests.support.server import ROOT, Server

MODULES = ROOT / "build" / "senders" / "node_modules"

pytestmark = pytest.mark.skipif(
    not (MODULES.exists() and shutil.which("node")), reason="make test-senders"
)

#: Logs the names that it is given.
LOG = """
require('readline').createInterface({input: process.stdin}).on('line', (line) => {
  for (const n of line.split(' ')) EVENT;
});
"""

EVENTS = {"winston": "logger.info('signup', {n})", "pino-http-send": "logger.info({n}, 'signup')"}
_PINO = SENDERS["pino-http-send"]


def started(sender: Sender, server: Server) -> Program:
    source = sender.lines(server) + LOG.replace("EVENT", EVENTS[sender.name])
    return Program(["node", "-e", source], os.environ | {"NODE_PATH": str(MODULES)})


@pytest.mark.parametrize("name", EVENTS)
def test_each_line_is_stored_once(name: str, serve: Serve, bucket: Bucket) -> None:
    sender = SENDERS[name]
    server = serve(**sender.environ)
    names = [f"line-{i}" for i in range(25)]
    with started(sender, server) as program:
        program.give(names)
        assert program.end() == "ended with 0"
    server.until(server.settled, "all is stored")
    assert sender.found(bucket.stored(), "line") == Counter(names)


@pytest.mark.parametrize("name", EVENTS)
def test_a_refusal_is_told(name: str, serve: Serve) -> None:
    server = serve(WRITE_KEYS="another")
    with started(SENDERS[name], server) as program:
        program.give([name])
        program.wait_until_it_says("401")
    assert server.metrics()["events_accepted_total"] == 0


def test_pino_sends_again_what_a_stop_kept_it_from(serve: Serve, bucket: Bucket) -> None:
    server = serve(**_PINO.environ)
    names = [f"line-{i}" for i in range(20)]
    with started(_PINO, server) as program:
        program.give(names[:10])
        server.until(lambda: len(bucket.stored()) == 10, "the first are stored")
        server.must_stop()
        program.give(names[10:])
        program.wait_until_it_says("retrying")
        server.start()
        program.end()
    server.until(server.settled, "all is stored")
    assert _PINO.found(bucket.stored(), "line") == Counter(names)


@pytest.mark.parametrize(
    ("package", "name"), [*zip(EVENTS, EVENTS, strict=True), ("pino", "pino-http-send")]
)
def test_the_versions_are_those_that_the_page_names(package: str, name: str) -> None:
    version = json.loads((MODULES / package / "package.json").read_text())["version"]
    assert version.rpartition(".")[0] in re.findall(r"[\d.]+", SENDERS[name].version)
