"""Go's net/http, with nothing but the standard library."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.senders.documented import SENDERS
from tests.senders.program import Program
from tests.support.command import run
from tests.support.s3 import Bucket

SENDER = SENDERS["Go's net/http"]

pytestmark = pytest.mark.skipif(not shutil.which("go"), reason="make test-senders, with golang-go")


def test_each_event_is_stored_once_or_its_sender_is_told(
    serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    program = str(tmp_path / "client")
    built = run(["go", "build", "-o", program, str(Path(__file__).with_name("client.go"))])
    assert built.returncode == 0, built.stderr
    server = serve(**SENDER.environ)
    names = [f"event-{i}" for i in range(3000)]
    with Program([program, f"{server.url}/collect"]) as client:
        for at in range(0, len(names), 600):
            client.give(names[at : at + 600])
        client.give(names[:1001])
        server.until(lambda: server.rejected("too_many_events") == 1, "the last one is refused")
        server.must_stop()
        client.give(names[:1])
        told = client.end().splitlines()
    assert [line.split()[0] for line in told] == [*["202"] * 5, "413", "not", "ended"], told
    assert SENDER.found(bucket.stored(), "event") == Counter(names)


def test_the_version_is_the_one_that_the_page_names() -> None:
    assert f"go{SENDER.version}" in run(["go", "version"]).stdout
