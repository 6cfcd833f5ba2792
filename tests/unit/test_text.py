"""What others wrote is shown without secrets, and harmless on a terminal."""

import base64
from urllib.parse import quote

import pytest

from estat.text import hidden, keep_secret, shown

KEY = "s3cret-A.b_c~d+e/f=="
BASIC = base64.b64encode(f"{KEY}:".encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"X-Write-Key: {KEY}",
        f"X-Write-Key={KEY}",
        f"x_write_key: {KEY}",
        f"b'X-Write-Key={KEY}'",
        f"Authorization: Bearer {KEY}",
        f"Authorization:Bearer {KEY}",
        f"Authorization Bearer {KEY}",
        f"authorization:\\tbearer {KEY}",
        f"Bearer: {KEY}",
        f"Bearer%20{KEY}",
        f"Authorization: Basic {BASIC}",
        f"Basic {BASIC}",
        f"Cookie: session={KEY}; a=1",
        f"GET /collect?key={KEY} HTTP/1.1",
        f"/collect?a=1&key={KEY}#x",
        f"/collect?a=1;key={KEY}",
        f"/collect?%6bey={KEY}",
        f"/collect?%256Bey={KEY}",
        f"/collect%3Fkey%3D{KEY}",
        f"key={KEY}",
        f"http://user:{KEY}@store/x",
        f"http://{KEY}@store/x",
        f"https:%2F%2Fuser:{KEY}%40store",
        f"user:{KEY}@store:9000",
        f"WRITE_KEY={KEY}",
        f"AWS_SECRET_ACCESS_KEY ={KEY}",
        f'{{"SecretAccessKey": "{KEY}", "SessionToken": "{KEY}"}}',
        f"password={KEY}",
        "it said wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEK1Y",
    ],
)
def test_a_secret_is_hidden_by_its_place(text):
    found = hidden(text)
    assert "(hidden)" in found
    assert not any(part in found for part in ("s3cret", BASIC[:6], "wJalr", "b_c"))


@pytest.mark.parametrize(
    "text",
    [
        "GET /collect?monkey=1&keys=2 HTTP/1.1",
        "WRITE_KEYS=(hidden) is not valid; it must be up to 32 different keys",
        "CAPTURE_HEADERS='cookie' has client addresses in full",
        "none of a credential (authorization, proxy-authorization, x-write-key)",
        "An error occurred (InvalidToken) when calling PutObject: no",
        "InvalidToken: it has expired",
        "Listening at: http://127.0.0.1:8080 (12)",
        "s3://bucket/raw/dt=2026-11-28/hr=03/1793800000_host-abc_000001.jsonl.gz",
        "file:///var/lib/a@b",
        "5b0c2f1d9a8e7c6b5a49382716f5e4d3c2b1a099",
        "100%25 sure",
    ],
)
def test_what_is_no_secret_stays(text):
    assert hidden(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "/collect/{}/x",
        "no such thing: {}.",
        quote(KEY, safe="") + "{:.0}",
        "%7e".join(KEY.split("~")) + "{:.0}",
        quote(quote(KEY, safe=""), safe="") + "{:.0}",
        KEY.upper() + "{:.0}",
        *(
            base64.b64encode(before + KEY.encode()).decode() + "{:.0}"
            for before in (b"", b"u:", b"a:b:")
        ),
        base64.urlsafe_b64encode(b"~" + KEY.encode()).decode() + "{:.0}",
    ],
)
def test_a_secret_of_the_settings_is_hidden_anywhere(text):
    keep_secret([KEY])
    found = hidden(text.format(KEY))
    assert "(hidden)" in found
    assert not any(part in found for part in ("s3cret", "S3CRET", "czNjcmV0", "b_c"))


def test_a_text_without_end_is_looked_at_in_no_time():
    for piece in ("//", "a:", "%25", "Authorization=", "key=", "x" * 40, "\\t"):
        assert len(hidden(piece * (20_000 // len(piece)))) <= 20_000


def test_a_short_text_stays_as_it_is():
    assert shown("text/html é 한국", 100) == "text/html é 한국"


def test_a_long_text_is_cut_and_says_so():
    assert shown("x" * 101, 100) == "x" * 100 + "…"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r", r"a\nb\r"),
        ("\x00\x9b", r"\x00\x9b"),
        ("\u202e\u2028", r"\u202e\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_could_upset_a_terminal_is_escaped(text, escaped):
    assert shown(text) == escaped
