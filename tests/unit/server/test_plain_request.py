"""Which heads are plain, and what environment they make."""

import pytest

from estat.server.plain_request import PlainRequests

HEAD = (
    b"POST /collect?a=1 HTTP/1.1\r\nHost: example.com\r\ncontent-type:  application/json \r\n"
    b"Content-Length: 12\r\nX-Forwarded-For: 203.0.113.7, 10.0.0.1"
)


def read(head, *, fields=100, line_bytes=4000):
    requests = PlainRequests(fields, line_bytes)
    first = requests.read(head, {"wsgi.url_scheme": "http"})
    again = requests.read(head, {"wsgi.url_scheme": "http"})
    assert first == again, "a head that is remembered means the same"
    return first


def test_a_plain_head_becomes_its_environment():
    assert read(HEAD) == {
        "wsgi.url_scheme": "http",
        "REQUEST_METHOD": "POST",
        "RAW_URI": "/collect?a=1",
        "PATH_INFO": "/collect",
        "QUERY_STRING": "a=1",
        "HTTP_HOST": "example.com",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "12",
        "HTTP_X_FORWARDED_FOR": "203.0.113.7, 10.0.0.1",
    }


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding: chunked",
        b"TE: trailers",
        b"Trailer: X",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"Connection: close",
        b"Connection: keep-alive, close",
        b"Connection: upgrade",
        b"Content-Length: +5",
        b"Content-Length: 05",
        b"Content-Length: 5, 5",
        b"Content-Length: 0x5",
        b"Content-Length:",
        b"Content-Length: 12",
        b"Host: other",
        b"X_Y: 1",
        b"Name : value",
        b": value",
        b"no colon",
        b" folded",
        b"\tfolded",
        b"",
        b"Name: a\rb",
        b"Name: a\nb",
        b"Name: \x00",
        b"Name: \x7f",
        b"N\xc3me: a",
        b"Na(me: a",
    ],
)
def test_a_line_that_is_not_regular_or_changes_the_framing_makes_a_head_not_plain(line):
    assert read(HEAD + b"\r\n" + line) is None


def test_a_body_is_plain_up_to_64_kib():
    head = b"POST /collect HTTP/1.1\r\nContent-Length: "
    assert read(head + b"65536")["CONTENT_LENGTH"] == "65536"
    assert read(head + b"65537") is None


@pytest.mark.parametrize(
    "start",
    [
        b"post /collect HTTP/1.1",
        b"PATCH /collect HTTP/1.1",
        b"POST /collect HTTP/1.0",
        b"POST /collect HTTP/2.0",
        b"POST  /collect HTTP/1.1",
        b"POST /collect HTTP/1.1 ",
        b" POST /collect HTTP/1.1",
        b"POST /collect",
        b"POST * HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"POST http://a/collect HTTP/1.1",
        b"POST //a/collect HTTP/1.1",
        b"POST /a%20b HTTP/1.1",
        b"POST /a#b HTTP/1.1",
        b"POST /a b HTTP/1.1",
        b"POST /\xe4 HTTP/1.1",
        b"",
        b"\r\nPOST / HTTP/1.1",
    ],
)
def test_a_request_line_that_is_not_regular_makes_a_head_not_plain(start):
    assert read(start + b"\r\nHost: a") is None


def test_limits_are_gunicorns():
    assert read(HEAD, fields=4)
    assert read(HEAD, fields=3) is None
    longest = max(map(len, HEAD.split(b"\r\n")))
    assert read(HEAD, line_bytes=longest)
    assert read(HEAD, line_bytes=longest - 1) is None


def test_what_is_remembered_is_bounded():
    requests = PlainRequests(100, 4000)
    for number in range(10_000):
        assert requests.read(b"GET / HTTP/1.1\r\nX-Id: %d" % number, {})
    assert len(requests._fields) <= 4096


def test_ids_of_single_requests_do_not_push_out_what_comes_again():
    requests = PlainRequests(100, 4000)
    for number in range(100):
        assert requests.read(b"GET / HTTP/1.1\r\nHost: a\r\nX-Amzn-Trace-Id: %d" % number, {})
    assert list(requests._fields) == [b"Host: a"]
