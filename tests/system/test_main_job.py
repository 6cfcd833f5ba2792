"""The main job, whole: an access log goes in through HTTP, objects come out of S3."""

import gzip
import json
import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Serve, both_workers, every_s3
from tests.support import accounting
from tests.support.hits import access_log
from tests.support.s3 import Bucket
from tests.support.server import BIN, Server, ask

pytestmark = [every_s3, pytest.mark.quick, both_workers]

KEY = re.compile(
    r"raw/dt=(?P<dt>\d{4}-\d\d-\d\d)/hr=(?P<hr>\d\d)/"
    r"(?P<unix>\d+)_test-1\.example-(?P<stream>[0-9a-f]+)_(?P<seq>\d+)\.jsonl\.gz"
)
# a reader of its own, on purpose: it shares nothing with the one of `estat send`
HIT = re.compile(
    r'(?P<ip>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "(?:[^"\\]|\\.)*" (?P<status>\d+) \S+ '
    r'"(?:[^"\\]|\\.)*" "(?P<agent>(?:[^"\\]|\\.)*)"?'
)
SHUTDOWN_SECONDS = 20  # SHUTDOWN_TIMEOUT of the tests

Hit = tuple[str, str, str, int]


def unescape(field: str) -> str:
    r"""Undo what web servers write for a quote, a backslash and other bytes: \", \\ and \xHH."""
    data = re.sub(
        rb"\\(?:x([0-9A-Fa-f]{2})|(.))",
        lambda found: bytes.fromhex(found[1].decode()) if found[1] else found[2],
        field.encode(),
    )
    return data.decode("utf-8", "replace")


def hits_of(log: Path) -> "Counter[Hit]":
    """Return address, agent, time and status of every hit in a log."""
    data = log.read_bytes()
    text = (gzip.decompress(data) if log.suffix == ".gz" else data).decode()
    hits: Counter[Hit] = Counter()
    for line in text.splitlines():
        match = HIT.fullmatch(line)
        assert match, line
        agent = "" if match["agent"] == "-" else unescape(match["agent"])[:1024].strip()
        hits[match["ip"], agent, match["time"], int(match["status"])] += 1
    return hits


def send(server: Server, log: Path) -> dict[str, object]:
    """Send a log with the real command and return its summary."""
    done = subprocess.run(
        [
            BIN / "estat",
            "send",
            "--combined-log",
            log,
            "--url",
            f"{server.url}/collect",
            "--json",
            "--concurrency",
            "32",
        ],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    summary: dict[str, object] = json.loads(done.stdout)
    return summary


def send_to_each_worker(server: Server) -> "Counter[Hit]":
    """Send one hit to each worker: the kernel may have given a whole log to one of them."""
    agent, event = "one more", {"time": "now", "status": 200}
    sent: Counter[Hit] = Counter()
    for connection in server.connection_to_each_worker().values():
        headers = {"Content-Type": "application/json", "User-Agent": agent}
        answer = ask(connection, "POST", "/collect", json.dumps(event).encode(), headers)
        assert answer.status == 202
        connection.close()
        sent["127.0.0.1", agent, "now", 200] += 1
    return sent


def test_every_hit_of_an_access_log_is_stored_once_and_the_stop_is_clean(
    serve: Serve, bucket: Bucket, tmp_path: Path
) -> None:
    log = Path(access_log(tmp_path))
    expected = hits_of(log)
    began = int(time.time())
    server = serve(workers=2, BATCH_SIZE="500", FLUSH_INTERVAL="300ms", S3_TIMEOUT="3s")

    summary = send(server, log)
    assert summary["accepted"] == expected.total() > 0
    expected += send_to_each_worker(server)

    stopped_at = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - stopped_at < SHUTDOWN_SECONDS / 2, "it waited for something"
    ended = int(time.time())

    objects = bucket.objects()
    lines = [line for found in objects for line in found.lines]
    stored = Counter(
        (line["ip"], line["user_agent"], line["body"]["time"], line["body"]["status"])
        for line in lines
    )
    assert stored == expected
    last_numbers = accounting.check_ids(lines)
    assert len(last_numbers) == 2, "each worker has a stream"

    for found in objects:
        match = KEY.fullmatch(found.key)
        assert match, found.key
        opened = int(match["unix"])
        assert began <= opened <= ended
        assert time.strftime("%Y-%m-%d/%H", time.gmtime(opened)) == f"{match['dt']}/{match['hr']}"
        ids = [line["id"] for line in found.lines]
        assert {name.rpartition("-")[0] for name in ids} == {match["stream"]}
        assert found.metadata == {
            "events": str(len(ids)),
            "first-id": ids[0],
            "last-id": ids[-1],
            "bytes": str(len(found.body)),
        }
        assert found.content_type == "application/x-ndjson"
        assert not found.content_encoding
        assert all(opened <= line["ts"] <= ended + 1 for line in found.lines)

    records = [bucket.object(key) for key in bucket.keys("raw_streams/")]
    assert {record.key: json.loads(record.body)["last_id"] for record in records} == {
        f"raw_streams/{stream}.json": f"{stream}-{last}" for stream, last in last_numbers.items()
    }
    markers = [bucket.object(key) for key in bucket.keys("raw_closed/")]
    hours = [json.loads(marker.body) for marker in markers]
    assert {hour["state"] for hour in hours} == {"closed"}
    told = [item for hour in hours for item in hour["streams"].items()]
    ids = [f"{s}-{n}" for s, spans in told for first, last in spans for n in range(first, last + 1)]
    assert sorted(ids) == sorted(line["id"] for line in lines)
    assert sorted(bucket.keys()) == sorted(found.key for found in (*objects, *records, *markers)), (
        "nothing else was written"
    )

    line = accounting.check_stopped(server.logs())
    assert line["accepted"] == line["stored"] == expected.total()
    assert line["pending"] == line["in_dlq"] == line["dropped"] == 0
