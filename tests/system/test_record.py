"""What is stored of a request and its client, as the settings say, and nothing else of it.

Each server gets a plain request, and an odd one with the same content that its own
short loop leaves to gunicorn's parser.
"""

import hashlib
import hmac
import http.client
import json
import socket
from typing import Any

import pytest

from tests.conftest import Serve, both_workers
from tests.support.eventually import eventually
from tests.support.s3 import Bucket
from tests.support.server import Answer, Server

pytestmark = [pytest.mark.quick, both_workers]

CLIENT = "203.0.113.77"
KEY = "a key of the tests, long enough"
MARK = b"must-not-be-stored"

Fields = list[tuple[str, str]]


def send(server: Server, body: bytes, fields: Fields, *, odd: bool = False) -> Answer:
    """Post a body with these header fields; odd is in chunks, with a field that says nothing."""
    lines = ["POST /collect HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in fields]
    if odd:
        lines += ["Transfer-Encoding: chunked", "X_Forwarded_For: 1.1.1.1"]
        data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
        data = body
    return exchange(server, "\r\n".join(lines).encode() + b"\r\n\r\n" + data)


def exchange(server: Server, data: bytes) -> Answer:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return Answer(answer.status, answer.headers, answer.read())


def send_both(server: Server, body: bytes, fields: Fields) -> None:
    for odd in (False, True):
        answer = send(server, body, fields, odd=odd)
        assert (answer.status, answer.json) == (202, {"accepted": 1})


def stored(server: Server, bucket: Bucket) -> list[dict[str, Any]]:
    """Return what is stored once all is, in the order in which it was accepted."""
    server.until(server.settled, "everything is stored")
    return sorted(bucket.stored(), key=lambda line: int(line["id"].rpartition("-")[2]))


# --- the client's address

FORGED = "1.1.1.1"
FOUND: list[tuple[dict[str, str], Fields, str]] = [
    ({}, [("X-Forwarded-For", FORGED), ("X-Forwarded-For", CLIENT)], CLIENT),
    ({}, [("X-Forwarded-For", CLIENT), ("Forwarded", "for=1.1.1.1")], CLIENT),
    ({}, [("Forwarded", 'for="[2001:DB8::1]:80'), ("Forwarded", f'for="{CLIENT}:80"')], CLIENT),
    ({}, [("CloudFront-Viewer-Address", f"{FORGED}:80")], "127.0.0.1"),
    (
        {"CLIENT_IP_HEADER": "cloudfront-viewer-address"},
        [("CloudFront-Viewer-Address", "2001:DB8::1:4711"), ("X-Forwarded-For", FORGED)],
        "2001:db8::1",
    ),
    (
        {"TRUSTED_PROXIES": "127.0.0.0/8,10.0.0.0/8"},
        [
            ("X-Forwarded-For", FORGED),
            ("X-Forwarded-For", f"{CLIENT}, 10.0.0.1"),
            ("CloudFront-Viewer-Address", f"{FORGED}:80"),
        ],
        CLIENT,
    ),
    (
        {"TRUSTED_PROXIES": "127.0.0.0/8,10.0.0.0/8"},
        [("CloudFront-Viewer-Address", f"{CLIENT}:80")],
        CLIENT,
    ),
    (
        {"TRUSTED_PROXIES": "10.0.0.0/8"},
        [
            ("X-Forwarded-For", FORGED),
            ("Forwarded", "for=1.1.1.1"),
            ("CloudFront-Viewer-Address", f"{FORGED}:80"),
        ],
        "127.0.0.1",
    ),
    ({"TRUSTED_PROXIES": "0"}, [("X-Forwarded-For", FORGED)], "127.0.0.1"),
]


def test_the_address_is_what_trusted_proxies_wrote(serve: Serve, bucket: Bucket) -> None:
    servers = {
        tuple(settings.items()): serve(**settings)
        for settings in {tuple(case[0].items()): case[0] for case in FOUND}.values()
    }
    for number, (settings, fields, _) in enumerate(FOUND):
        server = servers[tuple(settings.items())]
        send_both(server, b'{"n":%d}' % number, fields)
    for server in servers.values():
        server.until(server.settled, "everything is stored")
    found = sorted((line["body"]["n"], line["ip"]) for line in bucket.stored())
    expected = [(number, ip) for number, (_, _, ip) in enumerate(FOUND)]
    assert found == sorted(expected * 2)


STORED = {
    "truncate": "203.0.113.0",
    "hash": hmac.new(KEY.encode(), CLIENT.encode(), hashlib.sha256).hexdigest()[:32],
    "drop": "",
}


@pytest.mark.parametrize("mode", STORED)
def test_nothing_of_the_whole_address_is_kept(mode: str, serve: Serve, bucket: Bucket) -> None:
    key = {"IP_HASH_KEY": KEY} if mode == "hash" else {}
    server = serve(IP_MODE=mode, FLUSH_INTERVAL="1h", LOG_LEVEL="debug", **key)
    send_both(server, b"{}", [("X-Forwarded-For", CLIENT)])
    bad = f"POST /collect HTTP/1.1\r\nHost: x\r\nX-Forwarded-For : {CLIENT}\r\n\r\n"
    assert exchange(server, bad.encode()).status == 400
    refused = send(server, b"[", [("X-Forwarded-For", CLIENT)])
    assert refused.status == 400
    journals = [path for path in server.dlq_dir.rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in journals)
    assert kept.count(b'"ip":"%b"' % STORED[mode].encode()) == 2
    assert CLIENT.encode() not in kept
    assert server.stop() == 0
    assert [line["ip"] for line in bucket.stored()] == [STORED[mode]] * 2
    log = server.log_text()
    warnings = [line["event"] for line in server.logs() if line["level"] == "warning"]
    assert any("Invalid request from ip=(hidden)" in line for line in warnings)
    assert CLIENT not in log
    assert KEY not in log


# --- further header fields


def test_captured_header_fields_are_stored_beside_the_agent(serve: Serve, bucket: Bucket) -> None:
    server = serve(CAPTURE_HEADERS="Referer,cookie,X-Absent")
    fields = [
        ("User-Agent", "a/1"),
        ("Referer", "https://example.com/?q=\u00e4"),
        ("Cookie", 'a="1"; b=' + "x" * 2000),
        ("Authorization", "Bearer secret"),
    ]
    send_both(server, b'{"n":1}', fields)
    for line in stored(server, bucket):
        assert list(line) == [
            "id",
            "ts",
            "ip",
            "user_agent",
            "referer",
            "cookie",
            "x_absent",
            "body",
        ]
        assert line["user_agent"] == "a/1"
        assert line["referer"] == "https://example.com/?q=\u00e4"
        assert line["cookie"] == ('a="1"; b=' + "x" * 2000)[:1024]
        assert line["x_absent"] == ""


def test_fields_that_would_make_a_small_request_outgrow_the_queue_are_refused(
    serve: Serve, bucket: Bucket
) -> None:
    names = [f"x-{number}" for number in range(20)]
    server = serve(CAPTURE_HEADERS=",".join(names), QUEUE_BYTES="1MiB")
    fields = [("Content-Type", "application/x-ndjson"), *((name, "x" * 1024) for name in names)]
    answer = send(server, b'{"m":"%b"}\n' % MARK * 100, fields)
    assert answer.status == 413
    assert answer.json["title"] == "Too large"
    send_both(server, b"{}", [])
    assert MARK not in json.dumps(stored(server, bucket)).encode()


# --- the raw format

TEXTS = [
    (b"hello", "hello"),
    (b'{"a":1}\n{"b":2}\n', '{"a":1}\n{"b":2}\n'),
    (b"e=pv&x=\xff%FF\x00", "e=pv&x=\ufffd%FF\x00"),
    ("\u00e4\u2028\U0001f600\n".encode(), "\u00e4\u2028\U0001f600\n"),
    (b"[1,2", "[1,2"),
    (b"x" * 1000, "x" * 1000),
]


def test_raw_events_are_any_text_with_the_cookies_and_whole_seconds(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(EVENT_FORMAT="raw", MAX_BODY_SIZE="1000")
    fields = [("Cookie", "a=1"), ("Content-Type", "image/png"), ("X-Forwarded-For", CLIENT)]
    for body, _ in TEXTS:
        send_both(server, body, fields)
    send_both(server, b"no cookie", [])
    for odd in (False, True):
        assert send(server, b"", fields, odd=odd).status == 400
        assert send(server, MARK + b"x" * 1000, fields, odd=odd).status == 413
        encoded = [*fields, ("Content-Encoding", "br")]
        assert send(server, MARK, encoded, odd=odd).status == 415
    lines = stored(server, bucket)
    assert [line["body"] for line in lines] == [
        text for _, text in [*TEXTS, (b"", "no cookie")] for _ in range(2)
    ]
    assert [line["cookie"] for line in lines] == ["a=1"] * 2 * len(TEXTS) + ["", ""]
    for line in lines:
        assert list(line) == ["id", "ts", "ip", "user_agent", "cookie", "body"]
        assert isinstance(line["ts"], int)
    assert server.metrics()["events_accepted_total"] == len(lines)


def test_a_raw_event_outlives_the_server_that_took_it(serve: Serve, bucket: Bucket) -> None:
    first = serve(EVENT_FORMAT="raw", FLUSH_INTERVAL="1h")
    send_both(first, b"any \xff text", [])
    first.kill()
    second = serve(EVENT_FORMAT="raw")
    eventually(lambda: len(bucket.stored()) == 2, 20, "the journals are recovered")
    assert [line["body"] for line in bucket.stored()] == ["any \ufffd text"] * 2
    assert second.stop() == 0
