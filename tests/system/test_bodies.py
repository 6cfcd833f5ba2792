"""Events in gzip bodies, queries, pixels and forms, and events that must match a schema."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.conftest import both_workers
from tests.support.server import Answer, Server

pytestmark = [pytest.mark.quick, both_workers]

MAX_EVENT, MAX_BODY = 2048, 50_000
FORM = "application/x-www-form-urlencoded"
SCHEMA = {"properties": {"n": {"type": "string"}, "count": {"type": "integer", "minimum": 1}}}


def bodies(server: Server) -> list[dict[str, Any]]:
    return [line["body"] for line in server.stored()]


def check_refused(server: Server, answer: Answer, status: int, reason: str, before: float) -> None:
    assert answer.status == status, answer
    assert set(answer.json) == {"title", "description"}
    assert server.rejected(reason) == before + 1
    assert "refused" not in json.dumps(bodies(server))


def start(directory: Path, **settings: str) -> Server:
    given = {
        "RAW_BUCKET": f"file:{directory / 'store'}",
        "FLUSH_INTERVAL": "20ms",
        "MAX_BODY_SIZE": str(MAX_EVENT),
        "MAX_BATCH_BODY_SIZE": str(MAX_BODY),
    }
    return Server(directory, given | settings)


@pytest.fixture(scope="module")
def collecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("bodies")) as server:
        yield server


@pytest.fixture(scope="module")
def choosy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("schema")
    (directory / "schema.json").write_text(json.dumps(SCHEMA))
    with start(directory, EVENT_SCHEMA=str(directory / "schema.json")) as server:
        yield server


# --- gzip


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "identity", ""])
def test_a_body_in_a_known_coding_is_taken(coding: str, collecting: Server) -> None:
    body = json.dumps({"n": f"coding {coding}"}).encode()
    sent = gzip.compress(body) if "zip" in coding.lower() else body
    assert collecting.post(sent, **{"Content-Encoding": coding}).status == 202
    assert bodies(collecting).count({"n": f"coding {coding}"}) == 1


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "", FORM])
def test_gzip_is_known_by_how_it_begins(content_type: str, collecting: Server) -> None:
    body = b"n=known+as+" + content_type.encode() if content_type == FORM else b""
    event = {"n": f"known as {content_type}"}
    sent = gzip.compress(body or json.dumps(event).encode())
    assert collecting.post(sent, content_type).json == {"accepted": 1}
    assert bodies(collecting).count(event) == 1
    cut_off = collecting.post(REFUSED[:-3], content_type)
    assert (cut_off.status, cut_off.json["title"]) == (400, "Invalid gzip")


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/plain"])
def test_a_batch_of_several_members_is_taken(content_type: str, collecting: Server) -> None:
    events = [{"n": f"{content_type} {i}"} for i in range(50)]
    members = [gzip.compress(json.dumps(event).encode() + b"\n") for event in events]
    answer = collecting.post(b"".join(members), content_type, **{"Content-Encoding": "gzip"})
    assert answer.json == {"accepted": 50, "rejected": 0, "errors": []}
    stored = bodies(collecting)
    assert [stored.count(event) for event in events] == [1] * 50


REFUSED = gzip.compress(b'{"n":"refused"}')
BAD_GZIP = {
    "cut off": (REFUSED[:-3], 400, "invalid_gzip"),
    "bytes behind": (REFUSED + b"{}", 400, "invalid_gzip"),
    "a wrong checksum": (REFUSED[:-8] + bytes(8), 400, "invalid_gzip"),
    "zlib": (zlib.compress(b'{"n":"refused"}'), 400, "invalid_gzip"),
    "not compressed": (b'{"n":"refused"}', 400, "invalid_gzip"),
    "bad JSON inside": (gzip.compress(b'{"n":"refused"'), 400, "invalid_json"),
    "nothing inside": (gzip.compress(b""), 400, "empty_body"),
    "nothing": (b"", 400, "empty_body"),
    "an event too large": (
        gzip.compress(b'{"n":"refused","x":"%s"}' % (b"x" * MAX_EVENT)),
        413,
        "too_large",
    ),
    "a body too large": (gzip.compress(b'{"n":"refused"}\n' * MAX_BODY), 413, "too_large"),
}


@pytest.mark.parametrize(("body", "status", "reason"), BAD_GZIP.values(), ids=BAD_GZIP)
def test_a_gzip_body_that_is_bad_is_refused_with_its_reason(
    body: bytes, status: int, reason: str, collecting: Server
) -> None:
    before = collecting.rejected(reason)
    answer = collecting.post(body, **{"Content-Encoding": "gzip"})
    check_refused(collecting, answer, status, reason, before)


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "identity, gzip", "deflate", "zstd"])
def test_another_coding_is_refused_and_told_which_is_known(coding: str, collecting: Server) -> None:
    before = collecting.rejected("unsupported_encoding")
    answer = collecting.post(gzip.compress(b'{"n":"refused"}'), **{"Content-Encoding": coding})
    assert answer.headers["Accept-Encoding"] == "gzip"
    check_refused(collecting, answer, 415, "unsupported_encoding", before)


# --- queries and pixels


def test_a_query_is_an_event(collecting: Server) -> None:
    answer = collecting.get("/collect?n=query&a=x+y&a=%C3%A9&key=Enter")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert bodies(collecting).count({"n": "query", "a": ["x y", "é"], "key": "Enter"}) == 1


@pytest.mark.parametrize("path", ["/collect", "/collect/v1/batch", "/collect.gif"])
def test_a_beacon_that_is_its_url_alone_is_an_event(path: str, collecting: Server) -> None:
    answer = collecting.request("POST", f"{path}?n=leave&from={path}")
    assert (answer.status, answer.json) == (202, {"accepted": 1})
    assert bodies(collecting).count({"n": "leave", "from": path}) == 1


def test_a_post_without_a_body_but_with_a_type_is_refused(collecting: Server) -> None:
    before = collecting.rejected("empty_body")
    answer = collecting.request("POST", "/collect?n=refused", b"", {"Content-Type": "text/plain"})
    check_refused(collecting, answer, 400, "empty_body", before)


@pytest.mark.parametrize(
    "path", ["/collect/", "/collect/v1/batch", "/collect/p/", "/collect/a%2Fb"]
)
def test_senders_that_append_a_path_of_their_own_may_post_there(
    path: str, collecting: Server
) -> None:
    assert collecting.request("POST", path, b'{"n":"below"}').status == 202
    assert [collecting.request(m, path).status for m in ("GET", "HEAD")] == [404, 404]
    assert collecting.request("OPTIONS", path).status == 204


def test_a_query_of_the_pixel_is_an_event_and_the_answer_an_image(collecting: Server) -> None:
    answer = collecting.get("/collect.gif?n=pixel&a=%41")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/gif")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.body[:10] == b"GIF89a\x01\x00\x01\x00"
    assert len(answer.body) == 43
    assert bodies(collecting).count({"n": "pixel", "a": "A"}) == 1


@pytest.mark.parametrize(
    "query", ["a=%41+b&c=", "a=%41%2b!b", "a=%zz&b=%ff", "a=%E2%82%AC"], ids=str
)
def test_a_query_is_the_same_event_whoever_parses_its_head(query: str, collecting: Server) -> None:
    """A repeated field makes a head one for gunicorn's parser."""
    name = urlencode({"n": f"twice {query}"})
    connection = collecting.connection()
    connection.putrequest("GET", f"/collect?{name}&{query}")
    connection.putheader("X-A", "1")
    connection.putheader("X-A", "2")
    connection.endheaders()
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == collecting.get(f"/collect?{name}&{query}").status == 204
    stored = [body for body in bodies(collecting) if body.get("n") == f"twice {query}"]
    assert len(stored) == 2
    assert stored[0] == stored[1]


@pytest.mark.parametrize("path", ["/collect", "/collect.gif"])
@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("", 400, "empty_body"),
        ("?", 400, "empty_body"),
        ("?n=refused&x=" + "x" * MAX_EVENT, 413, "too_large"),
        ("?n=refused&" + "&" * 1000, 413, "too_many_fields"),
    ],
)
def test_a_query_that_is_no_event_is_refused_as_json_and_not_cached(
    path: str, query: str, status: int, reason: str, collecting: Server
) -> None:
    before = collecting.rejected(reason)
    answer = collecting.get(path + query)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"].startswith("application/json")
    check_refused(collecting, answer, status, reason, before)


@pytest.mark.parametrize("path", ["/collect", "/collect.gif"])
def test_a_head_request_stores_nothing(path: str, collecting: Server) -> None:
    answer = collecting.request("HEAD", f"{path}?n=refused")
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"].split(", ")
    assert "refused" not in json.dumps(bodies(collecting))


# --- forms


def test_a_form_is_an_event(collecting: Server) -> None:
    answer = collecting.post("n=form&a=1&a=x+y&b=%C3%A9&key=Enter", FORM)
    assert (answer.status, answer.json) == (202, {"accepted": 1})
    stored = {"n": "form", "a": ["1", "x y"], "b": "é", "key": "Enter"}
    assert bodies(collecting).count(stored) == 1


def test_a_form_in_another_encoding_is_read_in_it(collecting: Server) -> None:
    posted = collecting.post(b"n=euckr&t=%BE%C8%B3%E7", f"{FORM}; charset=EUC-KR")
    assert posted.status == 202
    pixel = collecting.get("/collect.gif?n=euckr&t=%BE%C8&_charset_=euc-kr")
    assert pixel.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    texts = [body["t"] for body in bodies(collecting) if body.get("n") == "euckr"]
    assert sorted(texts) == ["안", "안녕"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        ('{"n":"refused"}', FORM, 400, "invalid_form"),
        ("app: GET /p?n=refused&key=K HTTP/1.1", FORM, 400, "invalid_form"),
        ("", FORM, 400, "empty_body"),
        ("n=refused" + "&" * 1000, FORM, 413, "too_many_fields"),
        ("n=refused&a=" + "x" * MAX_EVENT, FORM, 413, "too_large"),
        ("--a\r\n\r\nrefused", "multipart/form-data; boundary=a", 415, "unsupported_type"),
    ],
)
def test_a_form_that_is_no_event_is_refused(
    body: str, content_type: str, status: int, reason: str, collecting: Server
) -> None:
    before = collecting.rejected(reason)
    answer = collecting.post(body, content_type)
    check_refused(collecting, answer, status, reason, before)


# --- schema


def test_events_that_match_the_schema_are_stored(choosy: Server) -> None:
    assert choosy.post('{"n":"right","count":1}').status == 202
    assert choosy.get("/collect?n=right").status == 204
    assert bodies(choosy).count({"n": "right", "count": 1}) == 1
    assert bodies(choosy).count({"n": "right"}) == 1


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/collect", b'{"n":"refused","count":0}'),
        ("GET", "/collect?n=refused&count=1", None),  # the values of a query are text
        ("GET", "/collect.gif?n=refused&count=1", None),
    ],
)
def test_an_event_unlike_the_schema_is_refused_with_place_and_reason(
    method: str, target: str, body: bytes | None, choosy: Server
) -> None:
    before = choosy.rejected("schema_mismatch")
    answer = choosy.request(method, target, body)
    assert answer.json["description"].startswith("/count: the value ")
    check_refused(choosy, answer, 400, "schema_mismatch", before)


def test_in_a_batch_each_mismatch_has_its_index_and_reason(choosy: Server) -> None:
    answer = choosy.post('[{"n":"a"},{"n":7},{"n":"b"},{"n":"refused","count":0}]')
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (202, 2, 2)
    first, second = answer.json["errors"]
    assert first == {"index": 1, "reason": '/n: the value is not of type "string"'}
    assert second["index"] == 3
    stored = bodies(choosy)
    assert stored.count({"n": "a"}) == stored.count({"n": "b"}) == 1
    assert "refused" not in json.dumps(stored)
