"""gzip bodies: inflated within the limit, and never beyond it."""

import gzip
import tracemalloc

import pytest

from estat.errors import Refused
from estat.events.gzip import MAX_MEMBERS, inflate

LIMIT = 100_000
DATA = b'{"a":"' + bytes(range(32, 127)) * 300 + b'"}'


def refusal(data, limit=LIMIT):
    with pytest.raises(Refused) as caught:
        inflate(data, limit)
    return caught.value


def test_several_members_are_joined():
    parts = [DATA[:10], b"", DATA[10:20_000], DATA[20_000:]]
    assert inflate(b"".join(map(gzip.compress, parts)), LIMIT) == DATA


@pytest.mark.parametrize("before_end", range(14))
def test_a_member_may_begin_anywhere(before_end):
    """What is fed to the inflater at a time are 16 KiB."""
    overhead = len(gzip.compress(b"x", 0)) - 1
    first = gzip.compress(bytes(16 * 1024 - overhead - before_end), 0)
    assert len(first) == 16 * 1024 - before_end
    assert inflate(first + gzip.compress(b"x"), LIMIT).endswith(b"\x00x")


def test_no_bytes_are_no_member():
    assert inflate(b"", LIMIT) == b""


def test_the_limit_is_the_last_length_that_is_taken():
    assert inflate(gzip.compress(DATA), len(DATA)) == DATA
    assert refusal(gzip.compress(DATA), len(DATA) - 1).reason == "too_large"


def test_the_limit_holds_for_all_members_together():
    assert refusal(gzip.compress(b"x" * 60) * 2, 119).reason == "too_large"
    assert inflate(gzip.compress(b"x" * 60) * 2, 120) == b"x" * 120


@pytest.mark.parametrize("at", range(1, len(gzip.compress(b"some data"))))
def test_a_body_cut_off_anywhere_is_refused(at):
    refused = refusal(gzip.compress(b"some data")[:at])
    assert (refused.reason, "cut off" in refused.description) == ("invalid_gzip", True)


@pytest.mark.parametrize("behind", [b"x", b"\x00", b"\x00" * 1000, b"\x1f", b"\x1f\x8bx", b"{}\n"])
def test_bytes_behind_the_end_are_refused(behind):
    assert refusal(gzip.compress(DATA) + behind).reason == "invalid_gzip"


@pytest.mark.parametrize("data", [b"{}", DATA, b"\x00", b"PK\x03\x04", b"\x1f\x8c\x08\x00"])
def test_what_is_no_gzip_is_refused(data):
    refused = refusal(data)
    assert (refused.reason, refused.description) == ("invalid_gzip", "the body is not gzip")


def test_a_wrong_checksum_or_length_is_refused():
    good = gzip.compress(DATA)
    for at in (-1, -4, -5, -8):
        bad = bytearray(good)
        bad[at] ^= 1
        assert refusal(bytes(bad)).reason == "invalid_gzip"


@pytest.mark.parametrize("flag", [0x20, 0x40, 0x80])
def test_a_reserved_flag_is_refused(flag):
    bad = bytearray(gzip.compress(DATA))
    bad[3] |= flag
    assert refusal(bytes(bad)).reason == "invalid_gzip"


def test_so_many_members_are_taken_and_no_more():
    member = gzip.compress(b"x")
    assert inflate(member * MAX_MEMBERS, LIMIT) == b"x" * MAX_MEMBERS
    assert refusal(member * (MAX_MEMBERS + 1)).reason == "too_large"


def test_a_bomb_takes_no_more_memory_than_what_is_allowed():
    bomb = gzip.compress(b"0" * 50_000_000)
    tracemalloc.start()
    try:
        assert refusal(bomb).reason == "too_large"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * LIMIT
