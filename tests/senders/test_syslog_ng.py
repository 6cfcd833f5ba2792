"""syslog-ng's http() destination, with the lines of docs/senders.md."""

import logging
import logging.handlers
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.senders.documented import SENDERS
from tests.senders.program import Program
from tests.support.command import run
from tests.support.eventually import eventually
from tests.support.s3 import Bucket
from tests.support.server import Server

SENDER = SENDERS["syslog-ng"]

pytestmark = pytest.mark.skipif(
    not shutil.which("syslog-ng"), reason="make test-senders, with syslog-ng-mod-http"
)

#: What stands around the lines of the page; who tests can't wait 60 s.
CONFIGURATION = """@version: 3.38
options { time-reopen(1); log-msg-size(65536); };
source local { unix-dgram("/log"); };
%s
log { source(local); destination(d_events); };
"""

Log = Callable[[str], None]


def started(server: Server, directory: Path) -> Program:
    text = CONFIGURATION % SENDER.lines(server)
    (directory / "conf").write_text(text.replace("/log", f"{directory}/log"))
    files = ("-f", "conf"), ("-R", "persist"), ("-c", "control"), ("-p", "pid")
    arguments = [part for option, name in files for part in (option, str(directory / name))]
    return Program(["syslog-ng", "--foreground", "--no-caps", "--stderr", *arguments])


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Log a line to syslog-ng when that is there."""

    def send(text: str) -> None:
        address = str(tmp_path / "log")
        eventually(Path(address).exists, 20, "syslog-ng listens")
        handler = logging.handlers.SysLogHandler(address)
        handler.emit(logging.makeLogRecord({"msg": f"shop: {text}"}))
        handler.close()

    return send


def test_each_line_is_stored_once_also_after_a_stop(
    serve: Serve, bucket: Bucket, log: Log, tmp_path: Path
) -> None:
    server = serve(**SENDER.environ)
    names = [f"line-{i}" for i in range(20)]
    with started(server, tmp_path) as program:
        for name in names[:10]:
            log(f'{name} with "quotes", \\ and é')
        server.until(lambda: len(bucket.stored()) == 10, "the first are stored")
        server.must_stop()
        for name in names[10:]:
            log(name)
        program.wait_until_it_says("trying again")
        server.start()
        server.until(lambda: len(bucket.stored()) >= 20, "the others are stored")
    server.until(server.settled, "all is stored")
    assert SENDER.found(bucket.stored(), "line") == Counter(names)


def test_a_line_that_is_refused_for_good_is_told_and_holds_up_no_other(
    serve: Serve, bucket: Bucket, log: Log, tmp_path: Path
) -> None:
    server = serve(**SENDER.environ | {"MAX_BODY_SIZE": "4KiB"})
    with started(server, tmp_path) as program:
        log("x" * 5000)
        program.wait_until_it_says("dropped")
        log("line-1")
        server.until(bucket.stored, "the other is stored")
    assert SENDER.found(bucket.stored(), "line") == Counter(["line-1"])


def test_the_version_is_the_one_that_the_page_names() -> None:
    found = re.search(r"\((\d+\.\d+)", run(["syslog-ng", "--version"]).stdout)
    assert found
    assert found[1] == SENDER.version
