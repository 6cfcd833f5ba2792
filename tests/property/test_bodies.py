"""Any gzip, query or form: refused with a known reason, or its meaning is what is stored."""

import gzip
import json
import zlib
from urllib.parse import parse_qsl, urlencode

from hypothesis import example, given
from hypothesis import strategies as st

from estat.errors import REFUSALS, Refused
from estat.events import form
from estat.events.gzip import inflate
from estat.events.parser import Intake

LIMIT = 1000
INTAKE = Intake(max_event_bytes=LIMIT, max_events=20)

members = st.lists(st.binary(max_size=400), min_size=1, max_size=4)
levels = st.integers(0, 9)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
fields = st.lists(st.tuples(names, names), min_size=1, max_size=8)
query_bytes = st.lists(
    st.sampled_from(
        [b"a", b"key", b"=", b"&", b"+", b"%", b"%41", b"%ff", b"\xc3", b"%c3%a9", b";"]
    )
    | st.binary(max_size=3),
    max_size=20,
).map(b"".join)


def compressed(parts: list[bytes], level: int) -> bytes:
    return b"".join(gzip.compress(part, level) for part in parts)


def by_zlib(data: bytes) -> bytes | None:
    """Inflate as zlib does, without a limit; None if it is not gzip to its last byte."""
    whole = b""
    while data:
        inflater = zlib.decompressobj(31)
        try:
            whole += inflater.decompress(data)
        except zlib.error:
            return None
        if not inflater.eof:
            return None
        data = inflater.unused_data
    return whole


def check_inflated(data: bytes) -> None:
    expected = by_zlib(data)
    try:
        found = inflate(data, LIMIT)
    except Refused as refused:
        if expected is not None:
            assert (refused.reason, len(expected) > LIMIT) == ("too_large", True)
        assert refused.reason in ("too_large", "invalid_gzip")
    else:
        assert found == expected
        assert len(found) <= LIMIT


@given(members, levels)
@example([b"x" * LIMIT], 9)
@example([b"x" * LIMIT, b"", b""], 0)
@example([b"x" * LIMIT, b"y"], 9)
def test_gzip_of_any_members_and_level_comes_out_whole_or_is_too_large(parts, level):
    check_inflated(compressed(parts, level))


@given(members, levels, st.data())
def test_a_gzip_that_was_damaged_is_taken_only_if_zlib_takes_it(parts, level, data):
    damaged = bytearray(compressed(parts, level))
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        damaged[data.draw(st.integers(0, len(damaged) - 1), label="at")] = data.draw(
            st.integers(0, 255), label="byte"
        )
    check_inflated(bytes(damaged))


@given(members, levels, st.data())
def test_a_gzip_that_was_cut_or_added_to_is_taken_only_if_zlib_takes_it(parts, level, data):
    whole = compressed(parts, level)
    cut = data.draw(st.integers(0, len(whole)), label="cut")
    check_inflated(whole[:cut] + data.draw(st.binary(max_size=30), label="added"))


@given(st.binary(max_size=200))
def test_any_bytes_as_gzip_are_taken_only_if_zlib_takes_them(data):
    check_inflated(data)
    check_inflated(b"\x1f\x8b\x08\x00" + data)


@given(query_bytes)
@example(b"&" * 999)
@example(b"a=" + b"\xff" * (LIMIT - 2))
def test_any_query_is_refused_with_a_known_reason_or_becomes_one_json_line(query):
    try:
        (line,) = INTAKE.read_query(query).bodies
    except Refused as refused:
        assert refused.reason in REFUSALS
        return
    assert b"\n" not in line
    assert json.loads(line) == form.parse(query)


@given(query_bytes)
def test_any_form_is_the_event_that_the_query_is(data):
    def outcome(read):
        try:
            return read().bodies
        except Refused as refused:
            return refused.reason

    posted = outcome(lambda: INTAKE.read(data, "application/x-www-form-urlencoded"))
    if posted != "invalid_form" and data.strip():
        assert posted == outcome(lambda: INTAKE.read_query(data.strip()))


@given(fields)
def test_what_was_encoded_as_a_form_comes_back(pairs):
    values = {name: [value for n, value in pairs if n == name] for name, _ in pairs}
    expected = {name: found if len(found) > 1 else found[0] for name, found in values.items()}
    assert form.parse(urlencode(pairs).encode()) == expected


@given(st.text(st.sampled_from("ab=&+%41c;"), max_size=40))
def test_fields_are_what_the_standard_library_finds(query):
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        found.setdefault(name, []).append(value)
    try:
        mine = form.parse(query.encode())
    except Refused:
        assert not found
        return
    assert {n: v if isinstance(v, list) else [v] for n, v in mine.items()} == found
