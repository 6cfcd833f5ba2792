"""A web page of another origin may send events, and read answers as ALLOWED_ORIGINS says."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.conftest import both_workers
from tests.support.s3 import Bucket, Moto
from tests.support.server import Answer, Server

pytestmark = [pytest.mark.quick, both_workers]

LISTED, SECOND, OTHER = "https://shop.example", "http://localhost:3000", "https://evil.example"
CORS = ("Access-Control-Allow-", "Access-Control-Expose-", "Access-Control-Max-")


class Both(NamedTuple):
    """A server for any origin, one for listed ones, and where both store."""

    any: Server
    listed: Server
    bucket: Bucket


@pytest.fixture(scope="module")
def both(moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    bucket = moto.new_bucket()
    settings = {
        "RAW_BUCKET": bucket.name,
        "AWS_ENDPOINT_URL_S3": moto.url,
        "MAX_BATCH_BODY_SIZE": "20000",
    }
    with ExitStack() as running:
        servers = [
            running.enter_context(Server(tmp_path_factory.mktemp("cors"), settings | extra))
            for extra in ({}, {"ALLOWED_ORIGINS": f"{SECOND},{LISTED}"})
        ]
        yield Both(*servers, bucket)


def cors_of(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.title().startswith(CORS)}


def preflight(server: Server, origin: str) -> Answer:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,traceparent",
    }
    return server.request("OPTIONS", "/collect", headers=headers)


def lower(names: str) -> set[str]:
    return {name.strip().lower() for name in names.split(",")}


@pytest.mark.parametrize("which", ["any", "listed"])
@pytest.mark.parametrize("origin", [LISTED, OTHER, "null", "*"])
def test_a_preflight_is_answered_for_every_origin_and_allows_what_it_asks_for(
    origin: str, which: str, both: Both
) -> None:
    answer = preflight(getattr(both, which), origin)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "post" in lower(answer.headers["Access-Control-Allow-Methods"])
    assert lower(answer.headers["Access-Control-Allow-Headers"]) == {"content-type", "traceparent"}
    assert answer.headers["Access-Control-Max-Age"] == "86400"
    assert lower(answer.headers["Vary"]) == {"origin"}


def test_options_without_a_preflight_tell_the_methods(both: Both) -> None:
    for server in both[:2]:
        answer = server.request("OPTIONS", "/collect")
        assert answer.status == 204
        assert {"POST", "OPTIONS"} <= set(answer.headers["Allow"].split(", "))


JSON = {"Content-Type": "application/json"}
CHUNKED = {"Transfer-Encoding": "chunked"}
ANSWERS = {
    "accepted": (202, "POST", "/collect", b'{"a":1}', JSON),
    "accepted in chunks": (202, "POST", "/collect", b'7\r\n{"a":1}\r\n0\r\n\r\n', JSON | CHUNKED),
    "a batch": (202, "POST", "/collect", b'[{"a":1},1]', JSON),
    "not JSON": (400, "POST", "/collect", b"x", JSON),
    "not JSON in chunks": (400, "POST", "/collect", b"1\r\nx\r\n0\r\n\r\n", JSON | CHUNKED),
    "no such path": (404, "GET", "/collect/v1", None, {}),
    "no such method": (405, "DELETE", "/collect", None, {}),
    "too large": (413, "POST", "/collect", b"x" * 20_001, JSON),
    "unknown type": (415, "POST", "/collect", b"{}", {"Content-Type": "application/xml"}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_of_the_intake_may_be_read_by_every_page(name: str, both: Both) -> None:
    status, method, path, body, headers = ANSWERS[name]
    for server in both[:2]:
        for origin in (None, OTHER, LISTED):
            given = headers | ({"Origin": origin} if origin else {})
            answer = server.request(method, path, body, given)
            assert answer.status == status
            assert answer.headers.get("Access-Control-Allow-Origin") == origin
            assert answer.headers["Vary"] == "Origin"
            assert "WWW-Authenticate" not in answer.headers


def test_no_page_may_read_probes_and_every_page_the_client(both: Both) -> None:
    for path in ("/", "/health", "/ready", "/metrics", "/nothing"):
        assert cors_of(both.any.request("GET", path, headers={"Origin": OTHER})) == {}
    script = both.listed.request("GET", "/estat.js", headers={"Origin": OTHER})
    assert cors_of(script) == {"access-control-allow-origin": "*"}


def test_answers_that_come_one_after_the_other_do_not_take_over_fields(both: Both) -> None:
    connection = both.listed.connection()
    try:
        for origin in (LISTED, OTHER, SECOND, None, LISTED):
            connection.request(
                "POST", "/collect", b'{"a":1}', JSON | ({"Origin": origin} if origin else {})
            )
            response = connection.getresponse()
            response.read()
            assert response.headers["Access-Control-Allow-Origin"] == origin
    finally:
        connection.close()


def test_a_page_that_is_not_listed_hears_that_it_is_refused_before_anything_is_stored(
    both: Both,
) -> None:
    event = '{"refused":"by its origin"}'
    reading = {"Origin": OTHER, "Sec-Fetch-Mode": "cors"}
    refused = both.listed.post(event, **reading)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (403, OTHER)
    assert OTHER in refused.json["description"]
    assert both.listed.metrics()['http_requests_rejected_total{reason="forbidden_origin"}'] >= 1
    own = f"http://127.0.0.1:{both.listed.port}"
    assert both.listed.post('{"own":1}', **reading | {"Origin": own}).status == 202
    assert both.any.post('{"any":1}', **reading).status == 202
    both.listed.until(both.listed.settled, "what was accepted is stored")
    assert json.loads(event) not in [line["body"] for line in both.bucket.stored()]


@pytest.mark.parametrize("which", ["any", "listed"])
def test_a_beacon_whose_answer_nobody_reads_is_stored(which: str, both: Both) -> None:
    server: Server = getattr(both, which)
    event = {"beacon": which}
    sent = {"Origin": OTHER, "Sec-Fetch-Mode": "no-cors", "Cookie": "session=1"}
    assert server.post(json.dumps(event), "text/plain;charset=UTF-8", **sent).status == 202
    server.until(server.settled, "it is stored")
    assert [line["body"] for line in both.bucket.stored()].count(event) == 1


def test_a_page_may_read_when_to_try_again(tmp_path, moto: Moto) -> None:
    settings = {
        "RAW_BUCKET": moto.new_bucket().name,
        "AWS_ENDPOINT_URL_S3": moto.url,
        "DLQ_MAX_SIZE_BYTES": "4KiB",
    }
    with Server(tmp_path, settings) as server:
        answer = server.post(json.dumps({"x": "x" * 3000}), Origin=OTHER)
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Access-Control-Allow-Origin"] == OTHER
        assert "retry-after" in lower(answer.headers["Access-Control-Expose-Headers"])
