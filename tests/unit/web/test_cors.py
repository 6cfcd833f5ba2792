"""ALLOWED_ORIGINS: which origins it takes, and which fields an answer has."""

import pytest

from estat.config import loading, parsers
from estat.errors import Refused, SettingsError
from estat.web import cors
from estat.web.cors import Origins

LISTED, OTHER = "https://shop.example", "https://evil.example"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("*", ("*",)),
        ("https://a.example", ("https://a.example",)),
        (
            "https://a.example, http://localhost:3000",
            ("https://a.example", "http://localhost:3000"),
        ),
        ("HTTPS://A.Example", ("https://a.example",)),
        ("https://a.example:443,http://b:80", ("https://a.example", "http://b")),
        ("http://a.example:443", ("http://a.example:443",)),
        ("http://[::1]:8080", ("http://[::1]:8080",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
        ("null,https://*.A.example:443", ("null", "https://*.a.example")),
        ("https://[::0:1]:443", ("https://[::1]",)),
        ("http://10.0.0.1,app://1", ("http://10.0.0.1", "app://1")),
        ("file://", ("file://",)),
    ],
)
def test_origins_are_read_as_browsers_write_them(text, parsed):
    assert parsers.origins(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/",
        "https://a.example/path",
        "a.example",
        "//a.example",
        "https://",
        "https://a.example,",
        "*,https://a.example",
        "https://*.",
        "https://a.*.example",
        "https://*a.example",
        "nul",
        "https://user@a.example",
        "https://a.example:0",
        "https://a.example:65536",
        "https://a.example:",
        "https://a.example:0443",
        "https://a.example?",
        "https://쇼핑.example",
        "https://[:::]",
        "http://127.1",
        "http://0x7f.0.0.1",
        "https://*.10.0.0.1",
        "https://a\r\nX: y",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(text):
    with pytest.raises(SettingsError, match=r"^ALLOWED_ORIGINS=.* is not valid; .*scheme://host"):
        loading.load({"RAW_BUCKET": "events", "ALLOWED_ORIGINS": text}, env_file="")


def request(origin=None, mode="cors", host="collect.example", **more):
    environ = {"HTTP_HOST": host, "HTTP_SEC_FETCH_MODE": mode, **more}
    return environ | ({"HTTP_ORIGIN": origin} if origin else {})


@pytest.mark.parametrize("origin", [LISTED, OTHER, "null", "capacitor://localhost"])
def test_every_origin_may_read_what_the_intake_answers_with_credentials_too(origin):
    assert dict(cors.fields(origin)) == {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
        "Vary": "Origin",
    }


def test_without_an_origin_a_cache_is_told_that_it_matters():
    assert cors.fields(None) == [("Vary", "Origin")]


@pytest.mark.parametrize(
    "names", ["traceparent", "content-type,sentry-trace, baggage,x-b3-traceid", "X-_!#$%&'*+.^`|~1"]
)
def test_a_preflight_allows_whatever_fields_the_page_names(names):
    environ = request(OTHER, HTTP_ACCESS_CONTROL_REQUEST_HEADERS=names)
    assert dict(cors.preflight(environ, "OPTIONS, POST")) == {
        "Access-Control-Allow-Methods": "OPTIONS, POST",
        "Access-Control-Allow-Headers": names,
        "Access-Control-Max-Age": "86400",
    }


@pytest.mark.parametrize("names", ["", "a:b", "a\tb", "a/b", "ä"])
def test_what_is_no_list_of_names_is_not_repeated(names):
    environ = request(OTHER, HTTP_ACCESS_CONTROL_REQUEST_HEADERS=names)
    assert "Access-Control-Allow-Headers" not in dict(cors.preflight(environ, "POST"))


LIST = (LISTED, "null", "https://*.apps.example", "http://*.dev.example:81", "app://main")


@pytest.mark.parametrize(
    "environ",
    [
        request(LISTED),
        request("null"),
        request("app://main"),
        request("https://a.apps.example"),
        request("https://a.b.apps.example"),
        request("http://a.dev.example:81"),
        request("https://collect.example"),
        request("http://collect.example:80", host="Collect.Example"),
        request("https://collect.example", host="collect.example:443"),
        request("https://collect.example:8443", host="collect.example:8443"),
        request(OTHER, mode="no-cors"),
        request(OTHER, mode="navigate"),
        {"HTTP_HOST": "collect.example", "HTTP_ORIGIN": OTHER},
        request(None),
    ],
    ids=str,
)
def test_what_is_listed_or_the_servers_own_or_reads_no_answer_may_send(environ):
    Origins(LIST).check(environ)


@pytest.mark.parametrize(
    "environ",
    [
        request(OTHER),
        request(LISTED + ".evil.example"),
        request("http://shop.example"),
        request(LISTED + ":444"),
        request("https://apps.example"),
        request("https://evilapps.example"),
        request("http://a.apps.example"),
        request("https://a.apps.example:444"),
        request("http://a.dev.example"),
        request("https://collect.example:8443"),
        request("https://collect.example", host=""),
        request("app://other"),
    ],
    ids=str,
)
def test_another_origin_that_can_read_the_answer_is_refused_and_named(environ):
    with pytest.raises(Refused) as caught:
        Origins(LIST).check(environ)
    assert caught.value.reason == "forbidden_origin"
    assert environ["HTTP_ORIGIN"] in caught.value.description
    Origins(("*",)).check(environ)
