"""What is an event, what is refused, and with which reason."""

import json

import pytest

from estat.errors import Refused
from estat.events import json_text
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


def test_a_sequence_of_json_texts_is_lines_with_a_separator_before_each(intake):
    body = b'\x1e{"a":1}\n\x1e{"b":"\x1e"}\n\x1e[{"c":3}]\n'
    events = intake.read(body, "application/json-seq")
    assert events.bodies == [b'{"a":1}', b'{"c":3}']
    assert [index for index, _ in events.refused] == [1]


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
        b'\xef\xbb\xbf\xef\xbb\xbf{"a":1}',
        b'{"a":1}\xef\xbb\xbf',
        b'{"a":1},{"b":2}',
        b'{"a":1}01',
        b'[{"a":1}]]',
        b'[{"a":1},',
        b'[{"a":1},]',
        b'{\n"a":1}\n{"b":2} x',
        b'{"a":"\xff"}',
        b'{"a":' + b"1" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_not_strict_json_is_refused(body):
    assert refusal(Intake(max_event_bytes=1_000_000, max_events=50), body) == "invalid_json"


@pytest.mark.parametrize("start", ["", "\ufeff", "\ufeff\n "])
@pytest.mark.parametrize(
    "content_type",
    [
        *(JSON, "text/json", "application/csp-report", "application/reports+json"),
        *("application/cloudevents-batch+json; charset=UTF-8", "Application/Vnd.Api+JSON"),
        *("application/octet-stream", NDJSON, "application/x-jsonlines", "application/x-ldjson"),
        *("text/x-ndjson", "application/json-lines", "application/stream+json", None),
    ],
)
def test_a_byte_order_mark_is_passed_over_whatever_the_name_of_the_type(
    intake, start, content_type
):
    body = f'{start}{{"a":1}}\n{{"b":2}}'.encode()
    assert intake.read(body, content_type).bodies == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize(
    "body", ['{"a":1}{"b":2}', '{"a":1} \n\t{"b":2}\r\n', '[{"a":1}]\n{"b":2}']
)
@pytest.mark.parametrize("content_type", [JSON, NDJSON, TEXT, None])
def test_several_values_are_several_events_whatever_is_between_them(intake, body, content_type):
    events = intake.read(body.encode(), content_type)
    assert (events.bodies, events.batch) == ([b'{"a":1}', b'{"b":2}'], True)


@pytest.mark.parametrize(
    "bad", ['{"x":NaN}', '{"x":-1e400}', '{"x":%s}' % ("9" * 4301), "1", '"t"']
)
@pytest.mark.parametrize(
    "form", ['[{"m":1},%s,{"m":3}]', '[\n{"m":1},\n%s\n,{"m":3}]', '{"m":1}%s{"m":3}']
)
@pytest.mark.parametrize("content_type", [JSON, TEXT])
def test_what_has_no_value_is_rejected_alone_and_spoils_nothing_beside_it(bad, form, content_type):
    intake = Intake(max_event_bytes=10_000, max_events=5)
    events = intake.read((form % bad).encode(), content_type)
    assert events.bodies == [b'{"m":1}', b'{"m":3}']
    assert [index for index, _ in events.errors] == [1]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("NaN", "NaN and Infinity are not JSON"),
        ("-Infinity", "NaN and Infinity are not JSON"),
        ("-1e400", "a number is out of range"),
        ("9" * 5000, "an integer has more than 4300 digits"),
    ],
)
def test_the_reason_says_what_is_wrong_with_a_number(number, reason):
    intake = Intake(max_event_bytes=10_000, max_events=5)
    assert intake.read(f'[{{"m":1}},{{"x":{number}}}]'.encode(), JSON).errors == [(1, reason)]


def test_a_line_that_is_not_whole_values_is_rejected_whole(intake):
    events = intake.read(b'{"m":1}\n\n{"m":2} x\n[{"m":3},\n{"m":4}{"m":NaN}\n{"m":5}', TEXT)
    assert events.bodies == [b'{"m":1}', b'{"m":4}', b'{"m":5}']
    assert [index for index, _ in events.errors] == [1, 2, 4]


def test_nothing_is_read_from_the_inside_of_an_array_that_is_cut_off(intake):
    assert refusal(intake, b'[\n{"m":1},\n{"m":2}\n', TEXT) == "invalid_json"


def test_an_array_in_an_array_is_no_event(intake):
    assert intake.read(b'[[{"m":1}],{"m":2}]', JSON).errors == [
        (0, "an event must be a JSON object")
    ]


@pytest.mark.parametrize(("levels", "is_read"), [(1000, True), (1001, False), (5000, False)])
@pytest.mark.parametrize("frame", ['[%s,{"x":%s}]', '[%s,NaN,{"x":%s}]', "[%s,[%s]]"])
@pytest.mark.parametrize(
    "body", ['{"m":0}\n%s\n{"m":3}', '%s\n{"m":0}\n{"m":3}', '{\n"m":0}%s{"m":3}']
)
def test_nesting_beyond_the_limit_refuses_the_value_at_the_top(levels, is_read, frame, body):
    intake = Intake(max_event_bytes=20_000, max_events=5)
    deep = frame % ('{"m":1}', "[" * (levels - 2) + "]" * (levels - 2))
    events = intake.read((body % deep).encode(), JSON)
    elements = frame.count("%s") + frame.count("NaN")
    taken = 1 + frame.count("x")
    assert len(events.bodies) == 2 + (taken if is_read else 0)
    assert len(events.refused) == (elements - taken if is_read else 1)


def test_empty_arrays_hide_neither_events_nor_what_breaks_the_text(intake):
    arrays = b"[ ]" * 60
    assert intake.read(arrays + b'{"a":1}{"b":2}', JSON).bodies == [b'{"a":1}', b'{"b":2}']
    assert refusal(intake, arrays + b"{}}") == "invalid_json"


@pytest.mark.parametrize("levels", [255, 1000])
def test_a_deep_event_keeps_integers_of_any_length(levels):
    intake = Intake(max_event_bytes=20_000, max_events=5)
    event = b'{"x":%b%b%b}' % (b"[" * (levels - 1), b"1" * 400, b"]" * (levels - 1))
    assert intake.read(event, JSON).bodies == [event]


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
    assert len(events.refused) == 2
    assert [index for index, _ in events.errors] == [1, 2]
    assert "at most 100" in events.errors[1][1]


def test_a_batch_without_a_valid_event_is_refused(intake):
    assert refusal(intake, b"[1,2]") == "no_valid_event"
    assert refusal(intake, b"x\ny", NDJSON) == "no_valid_event"


def test_an_answer_lists_no_more_errors_than_it_says(intake):
    events = intake.read(b'{"a":1}\n' + b"x\n" * 40, NDJSON)
    assert len(events.refused) == 40
    assert len(events.errors) == MAX_ERRORS


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (rb'{"a":"\ud800x"}', '{"a":"�x"}'),
        (rb'{"a":"\\\\ud800\\\\\ud800"}', r'{"a":"\\\\ud800\\\\�"}'),
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

    def check(self, value):
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


def test_half_a_surrogate_pair_is_checked_as_it_is_stored(choosy):
    assert choosy.read(rb'{"n":2,"x":"\ud800"}', JSON).bodies == ['{"n":2,"x":"\ufffd"}'.encode()]


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
    for _ in range(json_text.MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        json_text.dump(value)
