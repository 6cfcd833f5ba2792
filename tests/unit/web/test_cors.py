"""ALLOWED_ORIGINS: which origins it takes, and which fields an answer has."""

import pytest

from estat.config import loading, parsers
from estat.errors import SettingsError
from estat.web.cors import Cors

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
        "https://*.a.example",
        "null",
        "https://user@a.example",
        "https://a.example:0",
        "https://a.example:65536",
        "https://a.example:",
        "https://a.example?",
        "https://a\r\nX: y",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(text):
    with pytest.raises(SettingsError, match=r"^ALLOWED_ORIGINS=.* is not valid; .*scheme://host"):
        loading.load({"RAW_BUCKET": "events", "ALLOWED_ORIGINS": text}, env_file="")


@pytest.mark.parametrize("origin", [None, LISTED, "null"])
def test_with_any_origin_allowed_every_answer_names_none_and_allows_no_credentials(origin):
    assert dict(Cors(("*",)).fields(origin)) == {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "Retry-After",
    }


def test_a_listed_origin_is_named_and_may_send_credentials():
    assert dict(Cors((OTHER, LISTED)).fields(LISTED)) == {
        "Access-Control-Allow-Origin": LISTED,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
        "Vary": "Origin",
    }


@pytest.mark.parametrize(
    "origin",
    [None, "", OTHER, "null", LISTED + ".evil.example", LISTED + ":444", LISTED.upper(), "*"],
)
def test_an_origin_that_is_not_listed_gets_no_field_but_vary(origin):
    rule = Cors((LISTED,))
    assert rule.fields(origin) == [("Vary", "Origin")]
    assert rule.preflight(origin, "POST") == []


@pytest.mark.parametrize("allowed", ["*", LISTED])
def test_a_preflight_of_an_allowed_origin_is_told_methods_headers_and_for_how_long(allowed):
    fields = dict(Cors((allowed,)).preflight(LISTED, "OPTIONS, POST"))
    assert fields["Access-Control-Allow-Methods"] == "OPTIONS, POST"
    assert set(fields["Access-Control-Allow-Headers"].split(", ")) == {
        "Content-Type",
        "Content-Encoding",
        "Authorization",
        "X-Write-Key",
    }
    assert fields["Access-Control-Max-Age"] == "86400"
