"""With REJECTED_PREFIX what is refused for its content can be read, and only that."""

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve, both_workers
from tests.support import accounting
from tests.support.client import Client
from tests.support.faulty_s3 import FaultyS3
from tests.support.lines import gunzip_lines
from tests.support.s3 import Bucket
from tests.support.server import Server

KEY = "s3cr3t-write-key"
NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"
GZIP = {"Content-Encoding": "gzip"}

#: What is posted, as which type, with which fields; then the status that answers it.
POSTS: list[tuple[bytes, str, dict[str, str], int]] = [
    (b'{"n":', "", {}, 400),
    (b"[4]", "", {}, 400),
    (b'{"n":"text"}', "", {}, 400),
    (b"<xml/>", "text/xml", {}, 415),
    (b"no gzip", "", GZIP, 400),
    (b"x y", FORM, {}, 400),
    (b'{"x":"' + b"x" * 20_000 + b'"}', "", {}, 413),
    (b'{"n":1}\n{"n":\n{"n":"x"}\n\xff\n{"n":2}', NDJSON, {}, 202),
    (b'[{"n":3},5,{"x":NaN},{"y":["' + b"y" * 20_000 + b'"]}]', "", {}, 202),
    # these are refused for something else
    (b"{", "", {"Authorization": "Bearer another"}, 401),
    (b"", "", {}, 400),
    (b'{"n":1}\n' * 11, NDJSON, {}, 413),
    (b"{" * 200_000, "", {}, 413),
]

#: Reason, index, beginning and size of what is kept of them, and of a query of too many fields.
KEPT = [
    ("invalid_json", None, '{"n":', 5),
    ("no_valid_event", None, "[4]", 3),
    ("schema_mismatch", None, '{"n":"text"}', 12),
    ("unsupported_type", None, "<xml/>", 6),
    ("invalid_gzip", None, "no gzip", 7),
    ("invalid_form", None, "x y", 3),
    ("too_large", None, '{"x":"xxxxxx', 20_008),
    ("invalid_json", 1, '{"n":\n', 6),
    ("schema_mismatch", 2, '{"n":"x"}\n', 10),
    ("invalid_json", 3, "\ufffd\n", 2),
    ("not_an_object", 1, "5", 1),
    ("invalid_json", 2, '{"x":NaN}', 9),
    ("too_large", 3, '{"y":["yyyyy', 20_010),
    ("too_many_fields", None, "a&a&a&a&a&a&", 2001),
]


def lines_in(directory: Path) -> list[dict[str, Any]]:
    paths = sorted(directory.glob("dt=*/hr=*/*.jsonl.gz"))
    return [line for path in paths for line in gunzip_lines(path.read_bytes())]


@both_workers
@pytest.mark.quick
def test_what_is_refused_for_its_content_is_kept_and_nothing_else(tmp_path: Path) -> None:
    settings = {
        "RAW_BUCKET": f"file:{tmp_path / 'data'}",
        "REJECTED_PREFIX": "refused/here",
        "WRITE_KEYS": f"web:{KEY}",
        "IP_MODE": "truncate",
        "EVENT_SCHEMA": str(tmp_path / "schema.json"),
        "CAPTURE_HEADERS": "cookie",
        "MAX_BATCH_EVENTS": "10",
        "MAX_BATCH_BODY_SIZE": "100000",
    }
    (tmp_path / "schema.json").write_text('{"properties": {"n": {"type": "integer"}}}')
    usual = {
        "Authorization": f"Bearer {KEY}",
        "X-Forwarded-For": "203.0.113.77",
        "Cookie": "sid=private",
    }
    with Server(tmp_path, settings) as server:
        for body, kind, headers, status in POSTS:
            assert server.post(body, kind, **usual | headers).status == status, body[:20]
        assert server.get(f"/collect?key={KEY}&{'&'.join('a' * 1001)}").status == 413
        assert server.must_stop()["accepted"] == 3
        lines = lines_in(tmp_path / "data/refused/here")
        stored = [line["body"]["n"] for line in lines_in(tmp_path / "data/raw")]
        assert server.events("rejected_not_kept") == []
    assert sorted(stored) == [1, 2, 3]
    found = [(one["reason"], one.get("index"), one["text"][:12], one["bytes"]) for one in lines]
    assert found == KEPT
    assert {one["write_key"] for one in lines} == {"web"}
    assert Counter(one["ip"] for one in lines) == {"203.0.113.0": 13, "127.0.0.0": 1}
    assert not any(secret in str(lines) for secret in (KEY, "private"))


def test_a_store_that_is_away_costs_what_was_refused_and_no_event_and_no_time(
    serve: Serve, s3: FaultyS3, bucket: Bucket
) -> None:
    server = serve(via=s3, REJECTED_PREFIX="refused", SHUTDOWN_TIMEOUT="6s")
    client = Client()
    client.must_send(server, 3)
    server.until(server.settled, "all is stored")
    s3.fail("hang", key=lambda key: "refused/" in key)
    for _ in range(50):
        assert server.post("{").status == 400
    client.must_send(server, 3)
    stopped = server.must_stop()
    assert stopped["stored"] == 6
    (line,) = server.events("rejected_not_kept")
    assert (line["reason"], line["lines"]) == ("store", 50)
    assert len(bucket.stored()) == 6


def test_a_flood_of_refused_requests_beside_kills_takes_a_bounded_number_of_objects_and_bytes(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(workers=2, REJECTED_PREFIX="refused")
    client = Client()
    body = b'{"n":0}\n' + b"\x00\xff\n" * 900
    for number in range(40):
        assert server.post(body, NDJSON).json["rejected"] == 900
        client.must_send(server)
        if number == 20:
            server.kill_worker()
    over_limit = server.metrics()['rejected_not_kept_total{reason="limit"}']
    server.must_stop()
    objects = bucket.objects("refused/")
    assert {one.content_type for one in objects} == {"application/x-ndjson"}
    assert 1 <= len(objects) <= 2, "one a minute of each worker that lives"
    assert all(len(gzip.decompress(one.body)) < 1024 * 1024 + 1000 for one in objects)
    kept_lines = sum(len(one.lines) for one in objects)
    # what the killed worker had in memory went with it
    assert 0 <= 40 * 900 - over_limit - kept_lines < 1024 * 1024 // 100
    accounting.check_ids(bucket.stored())
