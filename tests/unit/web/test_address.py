"""Addresses in every form that proxies write."""

import pytest

from estat.web.client_address import normalise


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7\t", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ('"203.0.113.7:4711"', "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0:0:0:0:0:0001", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]:_port", "2001:db8::1"),
        ('"[2001:db8::1]:4711"', "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::FFFF:CB00:7107]:80", "203.0.113.7"),
        ("::1", "::1"),
    ],
)
def test_an_address_gets_its_usual_form(text, address):
    assert normalise(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "unknown",
        "_hidden",
        "-",
        "example.com",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "01.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:x",
        "1.2.3.4:123456",
        "1.2.3.4%eth0",
        "1.2.3.4/24",
        "[1.2.3.4",
        "1.2.3.4]",
        "[2001:db8::1]x",
        "[2001:db8::1]:",
        "[]",
        "[]:80",
        "2001:db8::1::2",
        '"1.2.3.4',
        '1.2.3.4"',
        '""',
        "\N{ARABIC-INDIC DIGIT ONE}.2.3.4",
        "fe80::1%" + "x" * 80,
        "1.2.3.4 5",
        "1.2.3.4\x00",
    ],
)
def test_what_is_no_address_is_none(text):
    assert normalise(text) is None
