"""Whatever bytes come in: refused with a reason, or stored as strict JSON of the same meaning."""

import json
from io import BytesIO
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from estat.errors import REFUSALS, Refused
from estat.events import long_text, stored_line
from estat.events.parser import Intake

INTAKE = Intake(max_event_bytes=1_000_000, max_events=20)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
events = st.dictionaries(st.text(), json_values, max_size=5)


def refuse_constant(name):
    raise AssertionError(f"{name} was stored")


def strict(line):
    return json.loads(line.decode(), parse_constant=refuse_constant)


@given(
    st.binary(max_size=300),
    st.sampled_from(["application/json", "text/plain", None, "application/x-ndjson"]),
)
@example(b'{"a":-}', "application/json")
@example(b'{"a":1e999}', "text/plain")
@example(b"\n\n{}\n", None)
def test_any_bytes_are_refused_with_a_known_reason_or_become_json_lines(body, content_type):
    try:
        found = INTAKE.read(body, content_type)
    except Refused as refused:
        assert refused.reason in REFUSALS
        return
    for line in found.bodies:
        assert isinstance(strict(line), dict)
        assert b"\n" not in line


@given(events)
def test_an_event_keeps_its_meaning(value):
    (line,) = INTAKE.read(json.dumps(value).encode(), "application/json").bodies
    expected = json.loads(
        json.dumps(value, ensure_ascii=False)
        .encode("utf-16-le", "surrogatepass")
        .decode("utf-16-le", "replace")
    )
    assert strict(line) == expected


#: Texts that are one value each, and none of them an event.
DAMAGED = ['{"x":NaN}', '{"x":[-Infinity]}', '{"x":1e400}', '{"x":' + "9" * 4301 + "}", "1"]
singles = st.lists(
    events.map(json.dumps) | st.sampled_from(DAMAGED) | st.just('{"half":"\\\\\\ud800"}'),
    min_size=2,
    max_size=8,
)
FRAMINGS = {
    "lines": ("\n".join, ["application/x-ndjson", "application/jsonl", "text/plain", None]),
    "lines of Windows": ("\r\n\r\n".join, ["application/json", "application/octet-stream"]),
    "one after the other": (" ".join, ["application/json", "application/cloudevents+json"]),
    "spread over lines": (lambda texts: "\n" + "\n".join(map(spread, texts)), ["text/json", ""]),
    "an array": (lambda texts: f"[{','.join(texts)}]", ["application/json", "text/plain"]),
    "an array over lines": (
        lambda texts: "[\n" + "\n,\n".join(texts) + "\n]\n",
        ["application/csp-report", "application/x-ndjson+json"],
    ),
}


def spread(text):
    """Put the first bracket of a value on a line of its own."""
    return text.replace("{", "{\n", 1)


def outcome(intake, body, content_type):
    try:
        found = intake.read(body, content_type)
    except Refused as refused:
        return refused.reason
    return found.bodies, len(found.refused), [index for index, _ in found.errors]


@given(singles, st.sampled_from(sorted(FRAMINGS)), st.booleans(), st.data())
def test_any_events_in_any_framing_under_any_name_are_the_same_events(texts, framing, mark, data):
    frame, names = FRAMINGS[framing]
    name = data.draw(st.sampled_from(names))
    body = b"\xef\xbb\xbf" * mark + frame(texts).encode()
    expected = outcome(INTAKE, "\n".join(texts).encode(), "application/x-ndjson")
    if framing == "spread over lines" and "{" not in texts[0]:
        return  # its first line is whole values, so each line is read by itself
    assert outcome(INTAKE, body, name) == expected


@given(
    st.lists(singles, min_size=1, max_size=3),
    st.sampled_from(["", ",", "]", "}", "[", "x", '"', "\\", "\n", " 1", "[]"]),
    st.sampled_from(["application/json", "application/x-ndjson"]),
    st.sampled_from([1, 20, 100]),
    st.data(),
)
def test_a_text_that_is_read_in_parts_is_read_as_it_is_at_once(values, put, name, size, data):
    text = data.draw(st.sampled_from(["", " ", "\n"])).join(f"[{','.join(one)}]" for one in values)
    at = data.draw(st.integers(0, len(text)))
    body = (text[:at] + put + text[at:]).encode()
    # more than there are: of too many events the rest is not read, so it breaks nothing
    whole, parted = (Intake(max_event_bytes=1_000_000, max_events=100) for _ in range(2))
    parted._short_bytes = 0
    sizes = {"PART_BYTES": size, "MOST_PART_BYTES": 2 * size + 2, "_FEW_VALUES": -1}
    with mock.patch.multiple(long_text, **sizes):
        found = outcome(parted, body, name)
    assert found == outcome(whole, body, name)


#: Lines that are one value each or none, and some that would be values only together.
LINES = (
    events.map(json.dumps)
    | st.lists(events, max_size=3).map(json.dumps)
    | st.sampled_from(
        [*DAMAGED, "", " {}", "{} {}", '{"a":[{}', '{}]},{"b":{}}', "1],[2", '{"a":"']
    )
    | st.sampled_from(['{"x":1e16}', '{"x":"1e+16"}', '{"n":18446744073709551616}', "[" * 300])
    | st.integers(250, 1001).map(lambda depth: '{"a":' * depth + "1" + "}" * depth)
)


def told(outcomes):
    return [
        one if isinstance(one, bytes) else (one.reason, str(one), one.source) for one in outcomes
    ]


@given(st.lists(LINES, min_size=1, max_size=6), st.sampled_from([10, 1_000_000]))
def test_lines_that_are_read_at_once_are_read_as_one_by_one(lines, max_event_bytes):
    intake = Intake(max_event_bytes, max_events=10)
    body = "\n".join(lines).encode()
    one_by_one = []
    intake._each(body.splitlines(keepends=True), one_by_one)
    at_once = intake._lines(BytesIO(body), [])
    if len(one_by_one) > 10:  # too many; the rest is not read
        assert len(at_once) > 10
    else:
        assert told(at_once) == told(one_by_one)


@given(st.lists(events | st.lists(events, min_size=1, max_size=3), min_size=1, max_size=5))
def test_an_array_at_the_top_stands_for_its_elements_wherever_it_stands(values):
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    lines = b"\n".join(json.dumps(value).encode() for value in values)
    array = INTAKE.read(json.dumps(flat).encode(), "application/json")
    assert INTAKE.read(lines, "application/x-ndjson").bodies == array.bodies
    assert INTAKE.read(lines.replace(b"\n", b" "), "application/json").bodies == array.bodies


@given(singles, st.sampled_from(sorted(FRAMINGS)), st.data())
def test_a_body_that_is_cut_off_stores_nothing_that_was_not_whole(texts, framing, data):
    frame, names = FRAMINGS[framing]
    body = frame(texts).encode()
    cut = body[: data.draw(st.integers(0, len(body)))]
    found = outcome(INTAKE, cut, data.draw(st.sampled_from(names)))
    if isinstance(found, tuple):
        whole = outcome(INTAKE, "\n".join(texts).encode(), "application/x-ndjson")[0]
        assert found[0] == whole[: len(found[0])]


@given(st.text(st.characters(max_codepoint=255), max_size=2000))
def test_any_header_becomes_a_bounded_json_string(value):
    text = json.loads(stored_line.header_text(value))
    assert len(text) <= stored_line.MAX_HEADER_CHARS
