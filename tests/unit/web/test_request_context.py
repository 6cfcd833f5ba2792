"""What is stored of a request: the address and the header fields that the settings name."""

import json

import pytest

from estat.config import loading
from estat.events import stored_line
from estat.web.request_context import RequestContext

ENVIRON = {
    "REMOTE_ADDR": "10.0.0.9",
    "HTTP_X_FORWARDED_FOR": "::ffff:203.0.113.7",
    "HTTP_USER_AGENT": "curl/8",
    "HTTP_REFERER": "https://example.com/ä".encode().decode("latin-1"),
    "HTTP_COOKIE": 'a="1"; b=2',
    "CONTENT_TYPE": "text/plain",
}


def stored(environ=ENVIRON, **settings):
    origins = RequestContext(loading.load({"RAW_BUCKET": "events", **settings}, env_file=""))
    (line,) = stored_line.stamped("s", 1, 1763800000.123, [(origins.of(environ), [b"{}"])])
    return json.loads(line)


def test_the_address_and_the_agent_are_stored_and_nothing_else():
    line = stored()
    assert list(line) == ["id", "ts", "ip", "user_agent", "body"]
    assert (line["ip"], line["user_agent"]) == ("203.0.113.7", "curl/8")


def test_a_captured_field_is_stored_under_its_name_with_underscores():
    line = stored(CAPTURE_HEADERS="Referer, X-Request-Id,content-type")
    assert list(line)[3:-1] == ["user_agent", "referer", "x_request_id", "content_type"]
    assert line["referer"] == "https://example.com/ä"
    assert line["content_type"] == "text/plain"


def test_a_field_that_did_not_come_is_stored_as_the_empty_string():
    line = stored({"REMOTE_ADDR": "10.0.0.9"}, CAPTURE_HEADERS="referer")
    assert (line["user_agent"], line["referer"]) == ("", "")


def test_a_captured_field_is_cut_as_the_agent_is():
    long = "ä".encode().decode("latin-1") * 4000
    line = stored(
        {**ENVIRON, "HTTP_USER_AGENT": long, "HTTP_REFERER": long}, CAPTURE_HEADERS="referer"
    )
    assert line["referer"] == line["user_agent"] == "ä" * stored_line.MAX_HEADER_CHARS


def test_a_captured_field_of_any_bytes_is_a_json_string():
    line = stored({**ENVIRON, "HTTP_COOKIE": 'caf\xe9"\\'}, CAPTURE_HEADERS="cookie")
    assert line["cookie"] == 'caf\ufffd"\\'


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/collect/v1/batch", "v1/batch"),
        ("/collect/p/", "p/"),
        ("/collect/안".encode().decode("latin-1"), "안"),
        ("/collect/\xff", "\ufffd"),
        ("/collect/" + "x" * 300, "x" * 256),
        ("/collect", None),
        ("/collect/", None),
        ("/collect.gif", None),
    ],
)
def test_the_rest_of_the_path_is_stored(path, rest):
    assert stored({**ENVIRON, "PATH_INFO": path}).get("path") == rest


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("source=web&a=1&a=2", {"source": "web", "a": ["1", "2"]}),
        ("t=%BE%C8", {"t": "안"}),
        ("", {}),
        ("&&", {}),
        ("a=1&b=" + "x" * 4096, {"a": "1"}),
    ],
)
def test_the_query_is_stored_beside_the_events_where_that_is_asked_for(query, fields):
    environ = {**ENVIRON, "QUERY_STRING": query}
    assert stored(environ, CAPTURE_QUERY="true", FALLBACK_CHARSET="euc-kr")["query"] == fields
    assert "query" not in stored(environ)


def test_the_agent_may_be_named_too():
    line = stored(CAPTURE_HEADERS="user-agent,referer")
    assert list(line) == ["id", "ts", "ip", "user_agent", "referer", "body"]


@pytest.mark.parametrize("capture", ["", "cookie"])
def test_the_raw_format_always_has_the_cookies(capture):
    line = stored(EVENT_FORMAT="raw", CAPTURE_HEADERS=capture)
    assert list(line) == ["id", "ts", "ip", "user_agent", "cookie", "body"]
    assert line["cookie"] == 'a="1"; b=2'


def test_the_mode_is_about_ipv4_also_where_the_address_is_mapped():
    assert stored(IP_MODE="truncate")["ip"] == "203.0.113.0"


def test_the_time_may_be_whole_seconds():
    (line,) = stored_line.stamped("s", 1, 1763800000.999, [(b"", [b""])], whole_seconds=True)
    assert line == b'{"id":"s-1","ts":1763800000}\n'
