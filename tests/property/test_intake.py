"""Whatever bytes come in: refused with a reason, or stored as strict JSON of the same meaning."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from estat.errors import REFUSALS, Refused
from estat.events import stored_line
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


@given(st.lists(events, min_size=1, max_size=20))
def test_an_array_and_its_lines_are_the_same_batch(values):
    array = INTAKE.read(json.dumps(values).encode(), "application/json")
    lines = INTAKE.read(b"\n".join(json.dumps(v).encode() for v in values), "application/jsonl")
    assert array.bodies == lines.bodies


@given(st.text(st.characters(max_codepoint=255), max_size=2000))
def test_any_header_becomes_a_bounded_json_string(value):
    text = json.loads(stored_line.header_text(value))
    assert len(text) <= stored_line.MAX_HEADER_CHARS
