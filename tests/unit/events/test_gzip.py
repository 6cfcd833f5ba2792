"""The gzip that is stored: whole, standard, and distrusted when read."""

import gzip as stdlib_gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estat.events.gzip import Encoder, gunzip, gunzip_lines, gzip


def test_pieces_make_one_standard_gzip_stream():
    encoder = Encoder()
    encoder.feed([b"a\n", b"b\n"])
    encoder.feed([b"c\n"])
    payload, _ = encoder.finish([b"d\n"])
    assert stdlib_gzip.decompress(payload) == b"a\nb\nc\nd\n"


@given(
    st.lists(st.lists(st.binary(max_size=5), max_size=20).map(b"\n".join), min_size=1, max_size=3)
)
def test_lines_are_those_of_the_whole(members):
    data = b"".join(map(gzip, members))
    whole = b"".join(members)
    assert gunzip(data) == whole
    assert list(gunzip_lines(data)) == list(io.BytesIO(whole))


def test_lines_that_are_longer_than_what_is_inflated_at_a_time_are_whole():
    lines = [b"a" * 1_000_000 + b"\n", b"b" * 2_000_000 + b"\n", b"c" * 3_000_000]
    assert list(gunzip_lines(gzip(b"".join(lines)))) == lines


def test_what_comes_before_the_damage_is_yielded_first():
    found = gunzip_lines(gzip(b"a\n" * 1000)[:-5])
    assert next(found) == b"a\n"
    with pytest.raises(ValueError, match="gzip"):
        list(found)


@pytest.mark.parametrize("cut", [1, 5, 12, 20])
def test_a_cut_off_stream_is_an_error(cut):
    with pytest.raises(ValueError, match="gzip"):
        gunzip(gzip(b"some content, long enough")[:-cut])


def test_a_damaged_stream_is_an_error():
    payload = bytearray(gzip(b"x" * 1000))
    payload[-6] ^= 1
    with pytest.raises(ValueError, match="gzip"):
        gunzip(bytes(payload))
