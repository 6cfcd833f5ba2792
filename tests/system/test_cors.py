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
        "Access-Control-Request-Headers": "content-type,x-write-key",
    }
    return server.request("OPTIONS", "/collect", headers=headers)


def lower(names: str) -> set[str]:
    return {name.strip().lower() for name in names.split(",")}


def test_with_any_origin_allowed_a_preflight_is_answered(both: Both) -> None:
    answer = preflight(both.any, OTHER)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "post" in lower(answer.headers["Access-Control-Allow-Methods"])
    assert lower(answer.headers["Access-Control-Allow-Headers"]) >= {
        "content-type",
        "content-encoding",
        "authorization",
        "x-write-key",
    }
    assert answer.headers["Access-Control-Max-Age"] == "86400"
    assert "Access-Control-Allow-Credentials" not in answer.headers


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
    "no such path": (404, "GET", "/nothing", None, {}),
    "no such method": (405, "DELETE", "/collect", None, {}),
    "too large": (413, "POST", "/collect", b"x" * 20_001, JSON),
    "unknown type": (415, "POST", "/collect", b"{}", {"Content-Type": "application/xml"}),
    "ready": (200, "GET", "/ready", None, {}),
    "health": (200, "HEAD", "/health", None, {}),
    "root": (200, "GET", "/", None, {}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_says_who_may_read_it(name: str, both: Both) -> None:
    status, method, path, body, headers = ANSWERS[name]

    def ask(server: Server, **origin: str) -> Answer:
        answer = server.request(method, path, body, headers | origin)
        assert answer.status == status
        return answer

    for origin in ({}, {"Origin": OTHER}):
        assert cors_of(ask(both.any, **origin)) == {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": "Retry-After",
        }
        answer = ask(both.listed, **origin)
        assert cors_of(answer) == {}
        assert answer.headers["Vary"] == "Origin"
    answer = ask(both.listed, Origin=LISTED)
    assert cors_of(answer) == {
        "Access-Control-Allow-Origin": LISTED,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
    }
    assert answer.headers["Vary"] == "Origin"


def test_answers_that_come_one_after_the_other_do_not_take_over_fields(both: Both) -> None:
    connection = both.listed.connection()
    try:
        for origin in (LISTED, OTHER, SECOND, None, LISTED):
            connection.request(
                "POST", "/collect", b'{"a":1}', JSON | ({"Origin": origin} if origin else {})
            )
            response = connection.getresponse()
            response.read()
            expected = origin if origin in (LISTED, SECOND) else None
            assert response.headers["Access-Control-Allow-Origin"] == expected
    finally:
        connection.close()


@pytest.mark.parametrize("which", ["any", "listed"])
def test_a_beacon_with_credentials_is_stored_whether_or_not_its_page_may_read(
    which: str, both: Both
) -> None:
    server: Server = getattr(both, which)
    event = {"beacon": which}
    answer = server.post(
        json.dumps(event), "text/plain;charset=UTF-8", Origin=OTHER, Cookie="session=1"
    )
    assert answer.status == 202
    assert "Access-Control-Allow-Credentials" not in answer.headers
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
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "retry-after" in lower(answer.headers["Access-Control-Expose-Headers"])
