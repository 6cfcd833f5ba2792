"""Any text is one event of the raw format."""

import json

import pytest

from estat.errors import Refused
from estat.events.raw_parser import RawIntake

INTAKE = RawIntake(max_event_bytes=100)


def refusal(body):
    with pytest.raises(Refused) as caught:
        INTAKE.read(body, None)
    return caught.value.reason


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"hello", "hello"),
        (b" \n", " \n"),
        (b'{"a": 1}\n{"b": 2}\n', '{"a": 1}\n{"b": 2}\n'),
        (b"e=pv&url=%2F&x=\xff", "e=pv&url=%2F&x=\ufffd"),
        ("ä\U0001f600\u2028".encode(), "ä\U0001f600\u2028"),
        (b'\x00\x1f"\\/\x7f', '\x00\x1f"\\/\x7f'),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    ],
)
def test_a_body_is_one_event_a_string_of_what_came(body, text):
    events = INTAKE.read(body, "application/x-ndjson")
    (line,) = events.bodies
    assert json.loads(line) == text
    assert b"\n" not in line
    assert not events.batch


@pytest.mark.parametrize("content_type", [None, "application/json", "image/png", "text/plain"])
def test_no_content_type_is_wrong(content_type):
    assert INTAKE.read(b"x", content_type).bodies == [b'"x"']


def test_an_empty_body_is_refused():
    assert refusal(b"") == "empty_body"


def test_the_limit_is_that_of_an_event_as_it_came():
    assert INTAKE.read(b"\x00" * 100, None).bodies == [b'"' + rb"\u0000" * 100 + b'"']
    assert refusal(b"x" * 101) == "too_large"
