"""What is an event, what is refused, and with which reason."""

import json

import pytest

from estat.errors import Refused
from estat.events import stored_line
from estat.events.parser import MAX_ERRORS, Intake
from estat.events.schema import Mismatch

JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def intake():
    return Intake(max_event_bytes=100, max_events=50)


def refusal(intake, body, content_type=JSON):
    with pytest.raises(Refused) as caught:
        intake.read(body, content_type)
    return caught.value.reason


def test_one_object_is_one_event(intake):
    events = intake.read(b' {"a": [1, 2.50]}\n', JSON)
    assert events.bodies == [b'{"a":[1,2.5]}']
    assert not events.batch


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", TEXT, "", None])
def test_an_array_is_a_batch(intake, content_type):
    events = intake.read(b'[{"a":1},{"b":2}]', content_type)
    assert events.bodies == [b'{"a":1}', b'{"b":2}']
    assert events.batch


@pytest.mark.parametrize("content_type", [NDJSON, "application/jsonl", TEXT, "", None])
def test_lines_are_a_batch_and_blank_ones_do_not_count(intake, content_type):
    assert intake.read(b'{"a":1}\r\n\n{"b":2}', content_type).bodies == [b'{"a":1}', b'{"b":2}']


def test_a_pretty_printed_object_as_text_is_one_event(intake):
    assert intake.read(b'{\n "a": 1\n}', TEXT).bodies == [b'{"a":1}']


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}x",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":-}',
        b'{"a":01}',
        b'{"a":1.}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":"\x01"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        b'{"a":' + b"1" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_not_strict_json_is_refused(body):
    assert refusal(Intake(max_event_bytes=1_000_000, max_events=50), body) == "invalid_json"


def test_an_object_over_the_limit_is_refused_unparsed(intake):
    assert refusal(intake, b" {" + b"x" * 100) == "too_large"


@pytest.mark.parametrize("body", [b"1", b'"text"', b"null", b"true"])
def test_what_is_not_an_object_is_refused(intake, body):
    assert refusal(intake, body) == "not_an_object"


@pytest.mark.parametrize("body", [b"", b" \n\t", b"[]"])
def test_a_body_without_events_is_refused(intake, body):
    assert refusal(intake, body) == "empty_body"


@pytest.mark.parametrize("content_type", ["image/png", "application/xml", "json"])
def test_an_unknown_type_is_refused(intake, content_type):
    assert refusal(intake, b"{}", content_type) == "unsupported_type"


def test_an_event_is_measured_as_it_came(intake):
    exactly = b'{"a":"' + b"x" * 92 + b'"}'
    assert intake.read(exactly, JSON).bodies == [exactly]
    assert refusal(intake, b'{"a":"' + b"x" * 93 + b'"}') == "too_large"


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"[" + b"{}," * 50 + b"{}]", JSON), (b"{}\n" * 51, NDJSON)]
)
def test_too_many_events_refuse_the_request(intake, body, content_type):
    assert refusal(intake, body, content_type) == "too_many_events"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'[{"a":1},3,{"b":"' + b"x" * 200 + b'"},{"c":3}]', JSON),
        (b'{"a":1}\nnot json\n{"b":"' + b"x" * 200 + b'"}\n{"c":3}', NDJSON),
    ],
)
def test_in_a_batch_bad_events_are_refused_by_themselves(intake, body, content_type):
    events = intake.read(body, content_type)
    assert events.bodies == [b'{"a":1}', b'{"c":3}']
    assert events.rejected == 2
    assert [index for index, _ in events.errors] == [1, 2]
    assert "at most 100" in events.errors[1][1]


def test_a_batch_without_a_valid_event_is_refused(intake):
    assert refusal(intake, b"[1,2]") == "no_valid_event"
    assert refusal(intake, b"x\ny", NDJSON) == "no_valid_event"


def test_an_answer_lists_no_more_errors_than_it_says(intake):
    events = intake.read(b'{"a":1}\n' + b"x\n" * 40, NDJSON)
    assert events.rejected == 40
    assert len(events.errors) == MAX_ERRORS


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (rb'{"a":"\ud800x"}', '{"a":"�x"}'),
        (rb'{"\udfff":1}', '{"�":1}'),
        (rb'{"a":"\ud83d\ude00"}', '{"a":"😀"}'),
        (rb'{"a":"\u0000\u2028/"}', '{"a":"\\u0000\u2028/"}'),
        (b'{"a":123456789012345678901234567890}', '{"a":123456789012345678901234567890}'),
        (b'{"a":1,"a":2}', '{"a":2}'),
        ('{"ä":"\x7f"}'.encode(), '{"ä":"\x7f"}'),
    ],
)
def test_what_is_stored_is_valid_json_whatever_came(intake, body, stored):
    (line,) = intake.read(body, JSON).bodies
    assert line == stored.encode()
    json.loads(line)


@pytest.mark.parametrize("content_type", [FORM, FORM + ";charset=UTF-8", FORM.upper()])
def test_a_form_and_a_query_are_the_same_event(intake, content_type):
    form, query = (
        intake.read(b"a=1&b=x+y&b=%C3%A9", content_type),
        intake.read_query(b"a=1&b=x+y&b=%C3%A9"),
    )
    assert form == query
    assert form.bodies == ['{"a":"1","b":["x y","é"]}'.encode()]
    assert not form.batch


@pytest.mark.parametrize(
    "read", [lambda i, data: i.read(data, FORM), lambda i, data: i.read_query(data)]
)
def test_a_form_or_query_is_measured_as_it_came(intake, read):
    assert read(intake, b"a=" + b"x" * 98).bodies == [b'{"a":"' + b"x" * 98 + b'"}']
    with pytest.raises(Refused) as caught:
        read(intake, b"a=" + b"x" * 99)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("body", [b'{"a":1}', b" [1]", b'\n{"a":1}'])
def test_json_that_says_it_is_a_form_is_refused(intake, body):
    assert refusal(intake, body, FORM) == "invalid_form"


def test_an_upload_is_refused(intake):
    assert refusal(intake, b"--x\r\n", "multipart/form-data; boundary=x") == "unsupported_type"


class EvenOnly:
    """A schema in the shape of ``Schema``: takes events whose ``n`` is even."""

    def check(self, value, encoded):
        assert json.loads(encoded) == value
        if int(value["n"]) % 2:
            raise Mismatch("/n: odd")


@pytest.fixture
def choosy():
    return Intake(max_event_bytes=100, max_events=50, schema=EvenOnly())


@pytest.mark.parametrize(
    ("body", "content_type"), [(b'{"n":1}', JSON), (b'{\n"n":1}', TEXT), (b"n=1", FORM)]
)
def test_a_single_event_unlike_the_schema_is_refused(choosy, body, content_type):
    with pytest.raises(Refused) as caught:
        choosy.read(body, content_type)
    assert (caught.value.reason, caught.value.description) == ("schema_mismatch", "/n: odd")
    assert choosy.read(body.replace(b"1", b"2"), content_type).bodies


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b'[{"n":1},{"n":2},{"n":3}]', JSON), (b'{"n":1}\n{"n":2}\n{"n":3}', NDJSON)],
)
def test_in_a_batch_events_unlike_the_schema_are_refused_by_themselves(choosy, body, content_type):
    events = choosy.read(body, content_type)
    assert events.bodies == [b'{"n":2}']
    assert events.errors == [(0, "/n: odd"), (2, "/n: odd")]


def test_a_batch_wholly_unlike_the_schema_is_refused(choosy):
    assert refusal(choosy, b'[{"n":1},{"n":3}]') == "no_valid_event"


@pytest.mark.parametrize(
    "number", ["18446744073709551615", "18446744073709551616", "-9223372036854775809", "1" * 50]
)
@pytest.mark.parametrize(
    ("before", "after", "content_type"),
    [
        (b"", b"", "application/json"),
        (b"[1,", b"]", "application/json"),
        (b'{"b":2}\n', b"", "application/x-ndjson"),
    ],
)
def test_an_integer_stays_exact_however_long(intake, number, before, after, content_type):
    event = b'{"name":"fine+","n":%b}' % number.encode()
    events = intake.read(before + event + after, content_type)
    assert events.bodies[-1] == event


def test_nesting_beyond_the_limit_is_refused_whatever_the_interpreter_could_hold():
    value = 1
    for _ in range(stored_line.MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        stored_line.encode(value)
