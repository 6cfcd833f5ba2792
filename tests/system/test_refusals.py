"""What is refused is refused with its reason, and leaves nothing behind.

One server serves all tests of this file; each has a marker of its own.
"""

import http.client
import itertools
import json
import os
import re
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.conftest import Serve, both_workers
from tests.support import accounting
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.s3 import Bucket, Moto
from tests.support.server import Answer, Server, ask

pytestmark = [pytest.mark.quick, both_workers]

MAX_EVENT, MAX_BODY, MAX_EVENTS, QUEUE = 4096, 20_000, 50, 30
MARK = "must-not-be-stored"

_serial = itertools.count(1)


class Collecting:
    """The server, and what it has stored so far."""

    def __init__(self, server: Server, bucket: Bucket) -> None:
        self.server = server
        self._bucket = bucket
        self._texts: dict[str, list[dict[str, Any]]] = {}

    def stored(self) -> list[dict[str, Any]]:
        """Wait until all that was accepted is stored and return it; objects never change."""
        self.server.until(self.server.settled, "everything is stored")
        for key in self._bucket.keys("raw/"):
            if key not in self._texts:
                self._texts[key] = self._bucket.object(key).lines
        return [line for lines in self._texts.values() for line in lines]

    def check_alive(self, connection: http.client.HTTPConnection | None = None) -> None:
        """A good event still goes through, and nothing of a refused one is stored."""
        name = f"good-{next(_serial)}"
        body = json.dumps({"n": name}).encode()
        on = connection or self.server.connection()
        answer = ask(on, "POST", "/collect", body, {"Content-Type": "application/json"})
        on.close()
        assert (answer.status, answer.json) == (202, {"accepted": 1})
        lines = self.stored()
        assert [line["body"] for line in lines].count({"n": name}) == 1
        assert MARK not in json.dumps(lines)
        accounting.check_ids(lines)
        accounting.check_equation(self.server.metrics())


@pytest.fixture(scope="module")
def collecting(moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    bucket = moto.new_bucket()
    settings = {
        "RAW_BUCKET": bucket.name,
        "AWS_ENDPOINT_URL_S3": moto.url,
        "FLUSH_INTERVAL": "20ms",
        "S3_TIMEOUT": "5s",
        "READ_TIMEOUT": "1s",
        "MAX_BODY_SIZE": str(MAX_EVENT),
        "MAX_BATCH_BODY_SIZE": str(MAX_BODY),
        "MAX_BATCH_EVENTS": str(MAX_EVENTS),
        "CHANNEL_SIZE": str(QUEUE),
        "QUEUE_BYTES": "100KiB",
    }
    with Server(tmp_path_factory.mktemp("refusals"), settings) as server:
        yield Collecting(server, bucket)


def check_error(answer: Answer, status: int) -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/json")
    assert set(answer.json) == {"title", "description"}
    assert answer.json["title"]


class Bad(NamedTuple):
    """A request that must be refused."""

    name: str
    status: int
    reason: str
    body: bytes
    content_type: str | None = "application/json"
    encoding: str | None = None


def _json(text: str) -> bytes:
    return text.replace("MARK", MARK).encode()


BAD_JSON = {
    "cut off": '{"m":"MARK"',
    "a raw line feed in a string": '{"m":"MARK\n"}',
    "too deep": '{"m":"MARK","a":' + "[" * 1800 + "]" * 1800 + "}",
}
NDJSON = "application/x-ndjson"
BAD = [
    *(Bad(name, 400, "invalid_json", _json(text)) for name, text in BAD_JSON.items()),
    Bad("invalid UTF-8", 400, "invalid_json", _json('{"m":"MARK ') + b'\xff"}'),
    Bad("an encoded surrogate", 400, "invalid_json", _json('{"m":"MARK ') + b'\xed\xa0\x80"}'),
    Bad("UTF-16", 400, "invalid_json", '{"m":1}'.encode("utf-16")),
    Bad("a broken array", 400, "invalid_json", _json('[{"m":"MARK"},')),
    Bad("a broken array as text", 400, "invalid_json", _json('[\n{"m":"MARK"},\n'), "text/plain"),
    Bad("a string", 400, "not_an_object", _json('"MARK"')),
    Bad("a number", 400, "not_an_object", b"42"),
    Bad("null", 400, "not_an_object", b"null"),
    Bad("no body", 400, "empty_body", b""),
    Bad("white space", 400, "empty_body", b" \r\n\t "),
    Bad("an empty array", 400, "empty_body", b"[]"),
    Bad("no body as text", 400, "empty_body", b"", "text/plain"),
    Bad("an array without an object", 400, "no_valid_event", _json('["MARK",1,null,[]]')),
    Bad("NDJSON without an event", 400, "no_valid_event", _json('"MARK"\n{"m":"MARK"\n'), NDJSON),
    Bad("text that is no JSON", 400, "invalid_json", _json("MARK"), "text/plain"),
    Bad("text lines that are no JSON", 400, "invalid_json", _json("MARK\nMARK"), "text/plain"),
    Bad("an event too large", 413, "too_large", _json('{"m":"MARK","x":"%s"}' % ("x" * MAX_EVENT))),
    Bad("a body too large", 413, "too_large", _json('{"m":"MARK","x":"%s"}' % ("x" * MAX_BODY))),
    Bad("a body far too large", 413, "too_large", _json("MARK") * 100_000),
    Bad(
        "too many events in an array",
        413,
        "too_many_events",
        _json("[" + ",".join(['{"m":"MARK"}'] * (MAX_EVENTS + 1)) + "]"),
    ),
    Bad(
        "too many lines", 413, "too_many_events", _json('{"m":"MARK"}\n' * (MAX_EVENTS + 1)), NDJSON
    ),
    Bad(
        "more than the queue ever holds",
        413,
        "too_large",
        _json('{"m":"MARK"}\n' * (QUEUE + 1)),
        NDJSON,
    ),
    Bad("an unknown type", 415, "unsupported_type", _json('{"m":"MARK"}'), "application/xml"),
    Bad(
        "an unknown encoding",
        415,
        "unsupported_encoding",
        _json('{"m":"MARK"}'),
        "application/json",
        "br",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_request_is_refused_with_its_reason(bad: Bad, collecting: Collecting) -> None:
    before = collecting.server.rejected(bad.reason)
    headers = {}
    if bad.content_type:
        headers["Content-Type"] = bad.content_type
    if bad.encoding:
        headers["Content-Encoding"] = bad.encoding
    connection = collecting.server.connection()
    answer = ask(connection, "POST", "/collect", bad.body, headers)
    assert connection.sock, "the connection stays"
    check_error(answer, bad.status)
    assert answer.json["description"]
    collecting.check_alive(connection)
    assert collecting.server.rejected(bad.reason) == before + 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_another_method_is_refused_with_what_is_allowed(
    method: str, collecting: Collecting
) -> None:
    answer = collecting.server.request(method, "/collect", _json('{"m":"MARK"}'))
    check_error(answer, 405)
    assert "POST" in answer.headers["Allow"].split(", ")
    collecting.check_alive()


def test_another_path_is_not_found(collecting: Collecting) -> None:
    answer = collecting.server.request("POST", "/elsewhere", _json('{"m":"MARK"}'))
    check_error(answer, 404)
    collecting.check_alive()


def raw(server: Server, data: bytes, *, end: bool = False) -> Answer:
    """Send bytes on a connection, read the answer and insist that the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        result = Answer(answer.status, answer.headers, answer.read())
        answer.close()
        assert connection.recv(1) == b"", "the server closes the connection"
    return result


HEAD = b"POST /collect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 1000\r\n\r\n" + _json('{"m":"MARK"}'),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"12\r\n" + _json('{"m":"MARK"')[:18],
    ],
    ids=["length", "chunked"],
)
def test_a_body_that_does_not_come_is_given_up_after_the_read_timeout(
    request_: bytes, collecting: Collecting
) -> None:
    before = collecting.server.rejected("body_timeout")
    answer = raw(collecting.server, request_)
    check_error(answer, 408)
    assert answer.headers["Connection"] == "close"
    assert collecting.server.rejected("body_timeout") == before + 1
    collecting.check_alive()


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 1000\r\n\r\n" + _json('{"m":"MARK"}'),
        b"Transfer-Encoding: chunked\r\n\r\n1e\r\n" + _json('{"m":"MARK"}')[:10],
    ],
    ids=["length", "chunked"],
)
def test_a_body_that_ends_too_soon_is_incomplete(rest: bytes, collecting: Collecting) -> None:
    before = collecting.server.rejected("incomplete_body")
    check_error(raw(collecting.server, HEAD + rest, end=True), 400)
    assert collecting.server.rejected("incomplete_body") == before + 1
    collecting.check_alive()


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n{}\r\n", b"2\r\n{}XX0\r\n", b"2\r\n{}\r\n0\r\nbad\r\n\r\n"]
)
def test_a_malformed_chunked_body_is_the_clients_error(
    collecting: Collecting, chunks: bytes
) -> None:
    before = collecting.server.rejected("incomplete_body")
    answer = raw(collecting.server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    check_error(answer, 400)
    assert collecting.server.rejected("incomplete_body") == before + 1
    collecting.check_alive()


def test_the_sender_of_a_chunked_body_far_too_large_sees_the_answer_before_the_end(
    collecting: Collecting,
) -> None:
    before = collecting.server.rejected("too_large")
    chunk = _json("MARK") * 600_000  # more than is read of a body that is too large
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk)
    answer = raw(collecting.server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    check_error(answer, 413)
    assert collecting.server.rejected("too_large") == before + 1
    collecting.check_alive()


def test_a_connection_goes_on_after_a_chunked_body_that_is_too_large(
    collecting: Collecting,
) -> None:
    before = collecting.server.rejected("too_large")
    connection = collecting.server.connection()
    chunks = iter([_json("MARK") * 100_000])
    connection.request("POST", "/collect", chunks, {"Content-Type": "application/json"})
    response = connection.getresponse()
    check_error(Answer(response.status, response.headers, response.read()), 413)
    assert connection.sock, "the connection stays"
    collecting.check_alive(connection)
    assert collecting.server.rejected("too_large") == before + 1


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(
    collecting: Collecting,
) -> None:
    before = collecting.server.rejected("incomplete_body")
    with socket.create_connection(("127.0.0.1", collecting.server.port)) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + _json('{"m":"MARK"}'))
    eventually(
        lambda: collecting.server.rejected("incomplete_body") == before + 1, 10, "it is counted"
    )
    collecting.check_alive()


# --- batches, part of which is good


def test_of_a_partly_valid_array_the_valid_events_are_stored_and_the_rest_is_named(
    collecting: Collecting,
) -> None:
    good = [{"n": f"array-{i}"} for i in range(3)]
    big = {"m": MARK, "x": "x" * MAX_EVENT}
    answer = collecting.server.post(json.dumps([good[0], MARK, good[1], big, None, good[2]]))
    assert answer.status == 202
    assert answer.json["accepted"] == 3
    assert answer.json["rejected"] == 3
    assert [error["index"] for error in answer.json["errors"]] == [1, 3, 4]
    assert "object" in answer.json["errors"][0]["reason"]
    assert str(MAX_EVENT) in answer.json["errors"][1]["reason"]
    stored = [line["body"] for line in collecting.stored()]
    assert [stored.count(body) for body in good] == [1, 1, 1]
    collecting.check_alive()


@pytest.mark.parametrize("content_type", [NDJSON, "application/jsonl", "text/plain", ""])
def test_of_partly_valid_lines_the_valid_events_are_stored_and_the_rest_is_named(
    content_type: str, collecting: Collecting
) -> None:
    good = [{"n": f"lines-{content_type}-{i}"} for i in range(2)]
    bad = ['{"m":"' + MARK, '{"a":NaN,"m":"' + MARK + '"}']
    lines = [json.dumps(good[0]), *bad, json.dumps(good[1])]
    headers = {"Content-Type": content_type} if content_type else {}
    answer = collecting.server.request("POST", "/collect", "\r\n".join(lines).encode(), headers)
    assert answer.status == 202, answer
    assert (answer.json["accepted"], answer.json["rejected"]) == (2, 2)
    assert [error["index"] for error in answer.json["errors"]] == [1, 2]
    assert all(error["reason"] for error in answer.json["errors"])
    stored = [line["body"] for line in collecting.stored()]
    assert [stored.count(body) for body in good] == [1, 1]
    collecting.check_alive()


def test_no_more_than_20_errors_are_listed_but_all_are_counted(collecting: Collecting) -> None:
    before = collecting.server.metrics()["events_rejected_total"]
    answer = collecting.server.post(json.dumps([MARK] * 30 + [{"n": "one of many"}]))
    assert answer.status == 202
    assert (answer.json["accepted"], answer.json["rejected"]) == (1, 30)
    assert [error["index"] for error in answer.json["errors"]] == list(range(20))
    assert collecting.server.metrics()["events_rejected_total"] == before + 30
    collecting.check_alive()


# --- strange but right


def _replaced(value: Any) -> Any:
    """Put U+FFFD in the place of lone surrogates, which UTF-8 can't hold."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    return value


STRANGE = {
    "a lone high surrogate": r'{"a":"\ud800"}',
    "a lone surrogate in a key": r'{"\udfff":1}',
    "a surrogate pair": r'{"a":"\ud83d\ude00"}',
    "a huge integer": '{"a":%s}' % (10**400),
    "64 bits and more": '{"a":[9223372036854775807,9223372036854775808,18446744073709551616]}',
    "floats": '{"a":[1e308,-1e-308,0.1,1.7976931348623157e308,5e-324,3.141592653589793]}',
    "control characters as escapes": json.dumps({"a": "".join(map(chr, range(32)))}),
    "duplicate keys": '{"a":1,"a":2}',
    "deep nesting": '{"a":' + "[" * 300 + "]" * 300 + "}",
    "a line of our own": '{"id":"x-1","ts":1,"body":{}}\n',
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_json_is_stored_as_strict_json_with_its_value(
    name: str, collecting: Collecting
) -> None:
    text = STRANGE[name]
    agent = f"strange {name}"
    answer = collecting.server.post(text, **{"User-Agent": agent})
    assert (answer.status, answer.json) == (202, {"accepted": 1})
    (line,) = [line for line in collecting.stored() if line["user_agent"] == agent]
    assert line["body"] == _replaced(json.loads(text))
    assert json.dumps(line["body"]) == json.dumps(_replaced(json.loads(text))), "types too"


def test_a_header_that_is_not_utf8_does_not_spoil_the_line(collecting: Collecting) -> None:
    body = b'{"n":"bytes in a header"}'
    agent = b'caf\xe9 "\\ \xff' + b"x" * 2000
    answer = raw(
        collecting.server,
        HEAD + b"User-Agent: " + agent + b"\r\nX-Forwarded-For: 2001:DB8::1\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
    )
    assert answer.status == 202
    (line,) = [line for line in collecting.stored() if line["body"] == json.loads(body)]
    assert line["user_agent"] == ('caf\ufffd "\\ \ufffd' + "x" * 2000)[:1024]
    assert line["ip"] == "2001:db8::1"


@pytest.mark.parametrize("text", ["1" * 5000, "9" * 4000 + ".5", "1e-400"])
def test_a_number_beyond_reason_is_refused_or_stored_as_strict_json(
    text: str, collecting: Collecting
) -> None:
    agent = f"number {len(text)}"
    answer = collecting.server.post('{"a":' + text + "}", **{"User-Agent": agent})
    assert answer.status in (202, 400, 413)
    found = [line for line in collecting.stored() if line["user_agent"] == agent]
    assert len(found) == (answer.status == 202)
    collecting.check_alive()


# --- no room


def test_a_burst_that_the_queue_has_no_room_for_is_refused_and_the_rest_stored(
    collecting: Collecting,
) -> None:
    server = collecting.server
    reason = collecting.server.rejected("queue_full")
    total = server.metrics()["http_requests_rejected_queue_full_total"]
    bodies = [
        "\n".join(json.dumps({"n": f"burst-{i}-{k}"}) for k in range(QUEUE)).encode()
        for i in range(12)
    ]
    connections = [server.connection() for _ in bodies]
    for connection in connections:
        assert ask(connection, "GET", "/health").status == 200
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGSTOP)  # so that all are there when it goes on
    try:
        for connection, body in zip(connections, bodies, strict=True):
            connection.request("POST", "/collect", body, {"Content-Type": NDJSON})
    finally:
        os.kill(worker, signal.SIGCONT)
    accepted, refused = [], 0
    for connection, body in zip(connections, bodies, strict=True):
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        if answer.status == 202:
            accepted += [json.loads(line)["n"] for line in body.splitlines()]
        else:
            check_error(answer, 503)
            assert int(answer.headers["Retry-After"]) >= 1
            refused += 1
    assert accepted
    assert refused
    assert collecting.server.rejected("queue_full") == reason + refused
    assert server.metrics()["http_requests_rejected_queue_full_total"] == total + refused
    stored = [
        line["body"]["n"]
        for line in collecting.stored()
        if str(line["body"].get("n", "")).startswith("burst-")
    ]
    assert sorted(stored) == sorted(accepted)
    collecting.check_alive()


def test_what_the_disk_could_not_hold_is_refused_before_it_is_accepted(
    serve: Serve, bucket: Bucket
) -> None:
    server = serve(DLQ_MAX_SIZE_BYTES="4KiB")
    answer = server.post(json.dumps({"m": MARK, "x": "x" * 3000}))
    check_error(answer, 503)
    assert int(answer.headers["Retry-After"]) >= 1
    assert server.metrics()['http_requests_rejected_total{reason="dlq_full"}'] == 1
    client = Client()
    client.must_send(server, count=2)
    server.until(server.settled, "it is stored")
    accounting.check(client.accepted, bucket.stored())


def test_a_client_that_goes_without_its_answer_is_no_error(serve: Serve, bucket: Bucket) -> None:
    server = serve()
    body = b'{"n":"gone"}'
    head = b"POST /collect HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            # closing on unread bytes, or at once: a reset
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall((head + body) * 20)
    assert server.post('{"n":"stays"}').status == 202
    server.until(server.settled, "everything is stored")
    assert "Traceback" not in server.log_text()
    assert server.stop() == 0
