"""What an object under a batch's key has of the batch, whole, cut off, or somebody else's."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from estat.errors import StoreDenied
from estat.events import gzip
from estat.events.batch import crc32_of
from estat.pipeline import found_object
from estat.pipeline.found_object import Finding
from estat.stores.store import Head
from tests.unit.batches import STREAM, batch, lines

OTHER = "0199c1b2f3a4" + "cd" * 8

#: An object with more ids than the batch that finds it; its text does not compress to nothing.
THERE = gzip.gzip(
    b"".join(
        b'{"id":"%b-%d","ts":1.000,"body":{"n":%d,"x":"%x"}}\n'
        % (STREAM.encode(), n, n, pow(7, 40 * n))
        for n in range(1, 41)
    )
)
TEXT = gzip.gunzip(THERE)
BATCH = batch(range(11, 31))
RECORD = replace(
    batch(),
    key=f"raw_streams/{STREAM}.json",
    events=0,
    payload=gzip.gzip(json.dumps({"stream": STREAM, "events": 10}).encode() + b"\n"),
)
JSON = gzip.gunzip(RECORD.payload)


def split(text):
    return text.splitlines(keepends=True)


def union_of(body, one=BATCH):
    """Return the lines of what is to be put in an object's place."""
    finding = found_object.compare(body, one)
    assert finding.rest is None
    union = finding.union
    assert union is not None
    stored = split(gzip.gunzip(union.payload))
    assert union.events == len(stored)
    assert union.crc32 == crc32_of(union.payload)
    assert stored[0].startswith(b'{"id":"%b-%d"' % (STREAM.encode(), union.first))
    assert stored[-1].startswith(b'{"id":"%b-%d"' % (STREAM.encode(), union.last))
    return stored


def numbered(text):
    return {int(line.partition(b'",')[0].rpartition(b"-")[2]): line for line in split(text)}


def test_an_object_that_is_cut_at_any_byte_keeps_its_whole_lines_in_the_union():
    ours = numbered(gzip.gunzip(BATCH.payload))
    counts = []
    for at in range(len(THERE)):
        readable = gzip.gunzip_damaged(THERE[:at])
        assert TEXT.startswith(readable)
        whole = numbered(readable[: readable.rfind(b"\n") + 1])
        expected = dict(sorted((whole | ours).items()))
        assert union_of(THERE[:at]) == list(expected.values()), at
        counts.append(len(whole))
    assert counts[0] == 0
    assert counts[-1] == 40, "nothing but the last byte is missing"


@given(st.integers(0, len(THERE) - 1), st.binary(max_size=300) | st.just(bytes(4096)))
def test_what_stands_behind_a_cut_takes_no_line_away(at, tail):
    body = THERE[:at] + tail
    assume(len(gzip.gunzip_damaged(THERE[:at])) > 7)
    assume(not body.startswith(THERE))
    stored = union_of(body)
    assert set(union_of(THERE[:at])) <= set(stored)
    numbers = [int(json.loads(line)["id"].rpartition("-")[2]) for line in stored]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("at", range(60, len(THERE), 100))
def test_zeros_behind_a_cut_make_nothing_up(at):
    assert union_of(THERE[:at] + bytes(4096)) == union_of(THERE[:at])


@pytest.mark.parametrize("tail", [b"x", b"\0", b"\nnot gzip\n", THERE[:50]])
def test_a_whole_gzip_with_something_behind_it_is_no_whole_gzip(tail):
    ours = numbered(gzip.gunzip(BATCH.payload))
    assert union_of(THERE + tail) == list((numbered(TEXT) | ours).values())


@pytest.mark.parametrize("body", [b"", b"\x1f", bytes(1000), b"cut"])
def test_where_no_line_is_left_the_batch_takes_the_place(body):
    assert union_of(body) == split(gzip.gunzip(BATCH.payload))


def test_a_whole_object_is_never_replaced():
    assert found_object.compare(THERE, BATCH) == Finding()
    rest = found_object.compare(gzip.gzip(lines(range(1, 21))), BATCH).rest
    assert rest is not None
    assert (rest.first, rest.last, rest.events) == (21, 30, 10)


@pytest.mark.parametrize(
    "body",
    [
        gzip.gzip(b"something else\n"),
        gzip.gzip(b"something else\n")[:-1],
        gzip.gzip(lines(range(1, 41), OTHER)),
        gzip.gzip(lines(range(1, 41), OTHER))[:-3],
        gzip.gzip(lines(range(1, 4)) + lines(range(1, 4), OTHER))[:-3],
        gzip.gzip(lines(range(1, 4)) + b'{"a":1}\n')[:-3],
        b"<!DOCTYPE html>\n<h1>It works!</h1>\n",
        lines(range(1, 41), OTHER),
    ],
)
def test_lines_that_are_not_of_the_stream_stay(body):
    with pytest.raises(StoreDenied, match="not ours"):
        found_object.compare(body, BATCH)


def test_metadata_tells_of_an_object_only_if_it_names_its_length():
    described = BATCH.metadata
    assert found_object.covers(Head(described | {"bytes": "100"}, 100, ""), BATCH)
    assert not found_object.covers(Head(described | {"bytes": "100"}, 60, ""), BATCH)
    assert not found_object.covers(Head(described, 100, ""), BATCH), "as objects were before"
    assert not found_object.covers(Head({"bytes": "100"}, 100, ""), BATCH)
    assert found_object.covers(Head({"bytes": "100"}, 100, ""), RECORD)


@pytest.mark.parametrize("form", ['"{}"', "{}"])
def test_metadata_tells_nothing_of_an_object_whose_etag_may_be_the_md5_of_other_bytes(form):
    described = BATCH.metadata | {"bytes": "100"}

    def covered(body):
        etag = form.format(hashlib.md5(body).hexdigest().upper())
        return found_object.covers(Head(described, 100, etag), BATCH)

    assert covered(BATCH.payload)
    assert not covered(BATCH.payload[:-1] + b"x")
    for other in ("", '"1f-2"', 'W/"abc"', "12-34-56"):
        assert found_object.covers(Head(described, 100, other), BATCH)


def test_a_record_that_is_cut_at_any_byte_is_replaced():
    for at in range(len(JSON) - 2):
        assert found_object.compare(JSON[:at], RECORD) == Finding(union=RECORD), at
        assert found_object.compare(JSON[:at] + bytes(99), RECORD) == Finding(union=RECORD), at
    assert found_object.compare(JSON + b"tail", RECORD) == Finding(union=RECORD)


def test_a_record_of_the_stream_that_says_it_otherwise_is_one():
    said = {"stream": STREAM, "events": 10, "host": "another"}
    assert found_object.compare(json.dumps(said).encode(), RECORD) == Finding()


@pytest.mark.parametrize("body", [b'{"stream":"x"}', b"[1]", b"something else"])
def test_what_is_no_record_of_the_stream_stays(body):
    with pytest.raises(StoreDenied):
        found_object.compare(body, RECORD)
