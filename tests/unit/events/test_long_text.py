"""Long bodies: others have their turn while they are read, whatever is in them."""

import tracemalloc
import zlib

import pytest

from estat.errors import Refused
from estat.events.gzip import inflate
from estat.events.parser import Intake

SIZE = 256 * 1024

#: Turns that others have in a body of that size at least.
TURNS = 8

LIMIT = 16 * 1024


class Turns:
    """Counts the turns that were given."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def filled(unit: bytes, size: int, between: bytes = b",") -> bytes:
    return between.join([unit] * (size // (len(unit) + len(between))))


def event(unit: bytes, size: int) -> bytes:
    return b'{"a":[%b]}' % filled(unit, size - 20)


DEEP = b"[" * 900 + b"]" * 900
DENSE = [b"[]", b'{"":[]}', b'""', b'{"a":0,"b":0}', DEEP, rb'"\ud800"']


@pytest.mark.parametrize("unit", DENSE)
@pytest.mark.parametrize("frame", [b"[%b]", b"[%b,NaN]", b"[%b", b"%b", b'{"m":1}%b'])
def test_others_have_their_turn_however_many_values_an_event_has(unit, frame):
    turns = Turns()
    body = frame % event(unit, SIZE)
    try:
        found = Intake(LIMIT, 1000, give_turn=turns).read(body, None)
    except Refused:
        pass
    else:
        assert (found.bodies, len(found.refused)) == ([b'{"m":1}'], 1)
    assert turns.count >= TURNS


@pytest.mark.parametrize("unit", DENSE)
@pytest.mark.parametrize("frame", [b"[%b]", b"[%b,NaN]"])
def test_others_have_their_turn_between_events_and_each_is_taken(unit, frame):
    turns = Turns()
    one = event(unit, LIMIT)
    found = Intake(LIMIT, 1000, give_turn=turns).read(frame % filled(one, SIZE), None)
    assert len(found.bodies) == len(filled(one, SIZE)) // len(one)
    assert turns.count >= TURNS


def test_others_have_their_turn_in_blank_lines():
    turns = Turns()
    found = Intake(LIMIT, 1000, give_turn=turns).read(b"\n" * SIZE + b"{}", "application/jsonl")
    assert found.bodies == [b"{}"]
    assert turns.count >= TURNS


def test_others_have_their_turn_while_a_body_is_inflated():
    turns = Turns()
    deflater = zlib.compressobj(wbits=31)
    blocks = b"".join(
        deflater.compress(b"x") + deflater.flush(zlib.Z_SYNC_FLUSH) for _ in range(SIZE // 10)
    )
    assert inflate(blocks + deflater.flush(), SIZE, turns) == b"x" * (SIZE // 10)
    assert turns.count >= TURNS


@pytest.mark.parametrize(
    ("inner", "reason"),
    [(b'{"a":[%b]}', "the event has 262"), (b"[%b]", "an event must be a JSON object")],
)
def test_a_value_that_is_far_too_large_is_rejected_alone(inner, reason):
    body = b'[{"m":1},\n%b, {"m":3} ]' % (inner % filled(b"[]", SIZE))
    found = Intake(LIMIT, 1000).read(body, None)
    assert found.bodies == [b'{"m":1}', b'{"m":3}']
    ((index, told),) = found.errors
    assert (index, told.startswith(reason)) == (1, True)


def test_what_is_refused_in_a_long_text_comes_with_its_own_text():
    deep = b"[" * 1500 + b"]" * 1500
    refused = [b'{"d":%b}' % deep, b"[0, %b ,1]" % deep, event(b"[]", SIZE)]
    body = b'{"m":1} %b' % b" ".join(refused)
    found = Intake(LIMIT, 1000).read(body, None)
    assert found.bodies == [b'{"m":1}']
    assert [one.source for _, one in found.refused] == refused


def test_white_space_and_escapes_do_not_make_an_event_too_large():
    escaped = filled(rb'"\u0041"', 30_000, b" ,\n")
    dense = filled(b"[]", 60_000)
    body = b'[{"a":%b[%b]},%b]' % (b" " * 10**5, escaped, dense)
    (event,) = Intake(LIMIT, 100_000).read(body, None).bodies
    assert event == b'{"a":[%b]}' % escaped.replace(rb"\u0041", b"A").replace(b" ,\n", b",")


def test_small_events_take_a_bounded_number_of_bodies_of_memory():
    body = b'{"a":0}\n' * 10_000
    tracemalloc.start()
    found = Intake(LIMIT, 10_000).read(body, "application/x-ndjson")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.bodies) == 10_000
    assert peak < 20 * len(body)


@pytest.mark.parametrize(
    ("end", "at"),
    [(b'{"a":}]', 5), (b"", 0), (b",]", 0), (b"{}}", 2), (b'{"a', 1), (b"{} x]", 3), (b"{}]\f", 3)],
)
def test_what_breaks_a_long_text_is_told_with_its_place(end, at):
    body = b"[" + b"[%b]," % filled(b"0", 2000) * 20
    with pytest.raises(Refused) as caught:
        Intake(LIMIT, 1000).read(body + end, "application/json")
    assert caught.value.reason == "invalid_json"
    assert caught.value.description.endswith(f"char {len(body) + at}")
