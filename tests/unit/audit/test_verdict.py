"""The audit's rule against a model that knows nothing but sets and counts."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from estat.audit import stored as audit_content
from estat.audit.stored import Content, from_body, from_lines, from_metadata
from estat.audit.verdict import Evidence, exit_code, judge
from estat.events import spans
from estat.events.gzip import gzip
from estat.events.spans import Repeat, Span, Stored
from tests.unit.batches import STREAM, batch, lines

KEY = batch().key


def ids(spans):
    return [n for span in spans for n in range(span.first, span.last + 1)]


def verdict(*stored, disk=(), record=None, partial=False, record_on_disk=False):
    spans = [Stored(first, last, f"key{i}") for i, (first, last) in enumerate(stored)]
    found = Evidence(spans, [Span(*span) for span in disk], record, record_on_disk)
    return judge(STREAM, found, partial=partial)


def runs(numbers):
    """Return the spans of numbers that come in this order."""
    found = []
    for number in numbers:
        spans.append(found, number)
    return spans.joined(found)


# --- spans

numbers = st.lists(st.integers(1, 40))


@given(numbers)
def test_runs_hold_each_number_as_often_as_it_was_given(given_numbers):
    assert Counter(ids(runs(given_numbers))) == Counter(given_numbers)


@given(numbers, numbers)
def test_spans_are_counted_joined_and_subtracted_as_sets_are(these, those):
    a, b = (spans.union(runs(found)) for found in (these, those))
    assert ids(a) == sorted(set(these))
    assert spans.total_ids(a) == len(set(these))
    assert ids(spans.subtract(a, b)) == sorted(set(these) - set(those))
    assert ids(spans.intersect(a, b)) == sorted(set(these) & set(those))
    assert all(one.last + 1 < other.first for one, other in pairwise(a))


# --- the verdict on a stream

pairs = st.tuples(st.integers(1, 30), st.integers(0, 10)).map(lambda t: (t[0], t[0] + t[1]))


@st.composite
def partitions(draw):
    """1 to n, divided into objects, of which some are gone and some are there twice."""
    n = draw(st.integers(1, 60))
    ends = sorted(draw(st.sets(st.integers(1, n))) | {n})
    objects = list(zip([1, *[end + 1 for end in ends]], ends, strict=False))
    copies = draw(st.lists(st.integers(0, 3), min_size=len(objects), max_size=len(objects)))
    stored = [span for span, times in zip(objects, copies, strict=True) for _ in range(times)]
    stored += draw(st.lists(pairs, max_size=2))
    disk = draw(st.lists(st.sampled_from(objects) | pairs, max_size=3))
    return draw(st.permutations(stored)), disk, draw(st.none() | st.just(n))


@given(partitions(), st.booleans(), st.booleans())
@example(([], [], 5), False, False)
@example(([(3, 5)], [], 7), True, False)
def test_the_verdict_is_that_of_a_model_of_single_ids(found, partial, record_on_disk):
    stored, disk, record = found
    record_on_disk = record_on_disk and record is not None
    times = Counter(ids(Span(*span) for span in stored))
    on_disk = set(ids(Span(*span) for span in disk))
    known = set(times) | on_disk
    if partial:
        expected = set(range(min(known), max(known) + 1)) if known else set()
    else:
        expected = set(range(1, (record or max(known, default=0)) + 1))
    holders = {
        n: [f"key{i}" for i, span in enumerate(stored) if span[0] <= n <= span[1]] for n in times
    }
    states = {
        "gaps": bool(expected - known),
        "repeats": any(count > 1 for count in times.values()),
        "past record": bool(record and max(known, default=0) > record),
        "waiting": record_on_disk or bool((on_disk & expected) - set(times)),
        "cut off": partial
        and (min(known, default=1) > 1 or (record is not None and max(known, default=0) < record)),
        "open": record is None,
    }

    got = verdict(*stored, disk=disk, record=record, partial=partial, record_on_disk=record_on_disk)

    assert ids(got.missing) == sorted(expected - known)
    assert ids(got.waiting) == sorted((on_disk & expected) - set(times))
    assert got.events == len(times)
    assert got.repeated_events == sum(count > 1 for count in times.values())
    assert {n: list(repeat.keys) for repeat in got.repeats for n in ids([repeat])} == {
        n: sorted(keys) for n, keys in holders.items() if len(keys) > 1
    }
    assert got.replaying_events == len(on_disk & set(times))
    assert set(got.states) == ({s for s, holds in states.items() if holds} or {"complete"})


@pytest.mark.parametrize(
    ("stored", "more", "states", "code"),
    [
        ([(1, 5), (6, 9)], {"record": 9}, ("complete",), 0),
        ([], {"record": 0}, ("complete",), 0),
        ([(1, 5), (6, 9)], {}, ("open",), 3),
        ([(1, 5), (8, 9)], {"record": 9}, ("gaps",), 1),
        ([(1, 5)], {"record": 9}, ("gaps",), 1),
        ([], {"record": 9}, ("gaps",), 1),
        ([(2, 9)], {}, ("gaps", "open"), 1),
        ([(1, 5), (5, 9)], {"record": 9}, ("repeats",), 1),
        ([(1, 9)], {"record": 8}, ("past record",), 1),
        ([(1, 5)], {"record": 9, "disk": [(6, 9)]}, ("waiting",), 3),
        ([(1, 9)], {"record": 9, "record_on_disk": True}, ("waiting",), 3),
        ([(1, 4)], {"record": 9, "disk": [(6, 9)]}, ("gaps", "waiting"), 1),
        ([(1, 9)], {"record": 9, "disk": [(6, 9)]}, ("complete",), 0),
        ([(3, 9)], {"record": 9, "partial": True}, ("cut off",), 3),
        ([(1, 5)], {"record": 9, "partial": True}, ("cut off",), 3),
        ([(3, 5), (7, 9)], {"record": 9, "partial": True}, ("gaps", "cut off"), 1),
        ([(3, 9)], {"partial": True}, ("cut off", "open"), 3),
        ([(1, 9)], {"record": 9, "partial": True}, ("complete",), 0),
    ],
)
def test_states_and_exit_codes(stored, more, states, code):
    found = verdict(*stored, **more)
    assert found.states == states
    assert exit_code([found], faulty=False) == code


def test_anything_unreadable_is_exit_code_1():
    assert exit_code([verdict((1, 9), record=9)], faulty=True) == 1


def test_a_repeat_names_every_object_that_has_the_ids():
    found = verdict((1, 9), (4, 6), (6, 8), record=9)
    assert found.repeats == (
        Repeat(4, 5, ("key0", "key1")),
        Repeat(6, 6, ("key0", "key1", "key2")),
        Repeat(7, 8, ("key0", "key2")),
    )


# --- what an object holds


def test_metadata_that_can_be_true_is_enough():
    assert from_metadata(KEY, batch(range(3, 8)).metadata) == Content(KEY, 5, {STREAM: [(3, 7)]})


@pytest.mark.parametrize(
    "change",
    [
        {"events": "9"},
        {"events": "many"},
        {"first-id": "1"},
        {"last-id": ""},
        {"first-id": f"{STREAM}-0"},
        {"events": "0", "last-id": f"{STREAM}-0"},
        {"last-id": "0199c1b2f3a4" + "cd" * 8 + "-10"},
    ],
)
def test_metadata_that_contradicts_itself_is_not_believed(change):
    assert from_metadata(KEY, batch().metadata | change) is None


def test_metadata_of_another_stream_than_the_key_names_is_not_believed():
    other = batch(stream="0199c1b2f3a4" + "cd" * 8)
    assert from_metadata(KEY, other.metadata) is None
    assert from_metadata("raw/renamed.jsonl.gz", other.metadata)


def test_ids_come_from_the_lines_with_their_gaps_and_repeats():
    content = from_body(KEY, gzip(lines([1, 2, 5, 2])))
    assert content.spans == {STREAM: [(1, 2), (5, 5), (2, 2)]}
    assert (content.events, content.bad_lines, content.was_read) == (4, 0, True)


@pytest.mark.parametrize(
    "bad",
    [
        b"not json",
        b'{"id":"%b-2","body":NaN}' % STREAM.encode(),
        b"[]",
        b'{"id":2}',
        b"",
        b'{"id":"%b-02"}' % STREAM.encode(),
        b'{"id":"someone-2"}',
        b'{"id":"\xff"}',
        b'{"id":"%b-2","body":{}' % STREAM.encode(),
    ],
)
def test_a_line_that_is_no_event_is_named_and_hides_no_other(bad):
    content = from_lines(KEY, [lines([1]), bad + b"\n", lines([3])])
    assert content.spans == {STREAM: [(1, 1), (3, 3)]}
    assert [(fault.place, fault.line) for fault in content.faults] == [(KEY, 2)]
    assert content.bad_lines == 1


def test_of_many_bad_lines_all_are_counted_and_some_kept():
    content = from_lines(KEY, [b"x\n"] * 1000)
    assert content.bad_lines == 1000
    assert len(content.faults) == audit_content.MAX_LINES_TOLD


@pytest.mark.parametrize(
    "body", [b"", gzip(b""), b"text", gzip(lines([1]))[:-5], gzip(lines([1])) + b"x"]
)
def test_a_damaged_object_is_a_fault_of_its_own(body):
    content = from_body(KEY, body)
    assert content.spans == {}
    assert [fault.line for fault in content.faults] == [None]


def test_an_object_whose_ids_are_in_any_order_takes_no_more_than_so_much(monkeypatch):
    monkeypatch.setattr(audit_content, "_MAX_SPANS", 3)
    assert from_body(KEY, gzip(lines([1, 2, 5, 8, 9]))).events == 5
    content = from_body(KEY, gzip(lines([1, 3, 5, 7])))
    assert (content.spans, [fault.line for fault in content.faults]) == ({}, [None])


RECORD_KEY = f"raw_streams/{STREAM}.json"


def test_a_record_tells_the_last_id():
    body = b'{"stream":"%b","instance":"web-1","events":9,"last_id":"%b-9"}'
    body %= STREAM.encode(), STREAM.encode()
    assert audit_content.record(RECORD_KEY, body) == (STREAM, "web-1", 9)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"stream":"other"}',
        b'{"stream":"%b","events":9,"last_id":"%b-8"}' % (STREAM.encode(), STREAM.encode()),
        b'{"stream":"%b","events":true,"last_id":"%b-1"}' % (STREAM.encode(), STREAM.encode()),
    ],
)
def test_a_record_that_can_not_be_true_is_refused(body):
    with pytest.raises(ValueError, match=r".+"):
        audit_content.record(RECORD_KEY, body)
