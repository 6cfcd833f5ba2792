"""The gzip that is stored: whole, standard, and distrusted when read."""

import gzip as stdlib_gzip

import pytest

from estat.events.gzip import Encoder, gunzip, gzip


def test_pieces_make_one_standard_gzip_stream():
    encoder = Encoder()
    encoder.feed([b"a\n", b"b\n"])
    encoder.feed([b"c\n"])
    payload, _ = encoder.finish([b"d\n"])
    assert stdlib_gzip.decompress(payload) == b"a\nb\nc\nd\n"


def test_all_members_are_read():
    assert gunzip(gzip(b"a") + gzip(b"b")) == b"ab"


@pytest.mark.parametrize("cut", [1, 5, 12, 20])
def test_a_cut_off_stream_is_an_error(cut):
    with pytest.raises(ValueError, match="gzip"):
        gunzip(gzip(b"some content, long enough")[:-cut])


def test_a_damaged_stream_is_an_error():
    payload = bytearray(gzip(b"x" * 1000))
    payload[-6] ^= 1
    with pytest.raises(ValueError, match="gzip"):
        gunzip(bytes(payload))
