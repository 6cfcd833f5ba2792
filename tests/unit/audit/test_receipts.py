"""Receipts are found whatever lies between, in few requests, and what is not is told so."""

import time
from zoneinfo import ZoneInfo

import pytest

from estat.audit import receipts
from estat.audit.reader import Reader
from estat.audit.receipts import look_up, receipt
from estat.audit.target import Target
from estat.events import ids
from estat.events.gzip import gzip
from estat.events.spans import Span
from estat.stores.directory import DirectoryStore
from tests.unit.batches import STREAM, lines

UTC = ZoneInfo("UTC")
OTHER = "ef" * 8
DAY = 24 * 3600


class Counting:
    """A directory that counts the requests that S3 would get: a listing is one a page."""

    def __init__(self, root):
        self._store = DirectoryStore(str(root))
        self.requests = self.gets = 0

    def head(self, key):
        self.requests += 1
        return self._store.head(key)

    def get(self, key):
        self.gets += 1
        return self._store.get(key)

    def list(self, prefix, after=""):
        self.requests += 1
        for number, key in enumerate(self._store.list(prefix, after)):
            self.requests += bool(number) and number % 1000 == 0
            yield key


class Bucket:
    """Batches of a stream that began some time ago, each at its time."""

    def __init__(self, root, zone=UTC):
        self.root = root
        self.store = Counting(root)
        self.zone = zone
        self.batches = 0

    def put(self, stream, at, numbers, *, suffix="", seq=None):
        self.batches += 1
        place = ids.partition(at, self.zone)
        key = ids.object_key("raw", place, at, "web-1", stream, seq or self.batches)
        path = self.root / key.replace(ids.SUFFIX, f"{suffix}{ids.SUFFIX}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip(lines(numbers, stream)))

    def look_up(self, *texts, part=""):
        target = Target(f"file:{self.root}", "raw", part)
        reader = Reader(self.store, 0)
        return look_up([receipt(text) for text in texts], target, reader, [], self.zone)

    def found(self, *texts, **more):
        report = self.look_up(*texts, **more)
        return [
            (state, first, last) for one in report.receipts for state, first, last, _ in one.found
        ]


def began(days, minute=0):
    """Name a stream that began so many days ago, and in that minute of an hour."""
    at = int(time.time() - days * DAY) // 3600 * 3600 + minute * 60
    return f"{at * 1000:012x}{OTHER}", at


@pytest.fixture
def bucket(tmp_path):
    return Bucket(tmp_path)


@pytest.mark.parametrize("minute", [1, 31])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul", "Asia/Kolkata", "America/New_York"])
def test_among_objects_of_weeks_an_id_is_found_in_few_requests(zone, minute, tmp_path):
    bucket = Bucket(tmp_path, ZoneInfo(zone))
    stream, at = began(12.5, minute)
    for hour in range(300):
        bucket.put(stream, at + hour * 3600, [hour + 1])
        bucket.put(STREAM, at + hour * 3600, [hour + 1])
    for number in (1, 2, 77, 300):
        before = bucket.store.requests
        assert bucket.found(f"{stream}-{number}") == [("stored", number, number)]
        assert bucket.store.requests < before + 25


def test_of_a_range_every_object_is_named_in_the_ids_order_and_what_is_in_none_is_unknown(bucket):
    stream, at = began(1)
    bucket.put(stream, at, range(1, 11))
    bucket.put(stream, at + 3600, [*range(11, 14), *range(16, 21)], seq=2)
    bucket.put(stream, at + 3600, [14], suffix="-r1", seq=2)
    bucket.put(stream, at + 7200, range(21, 31))
    expected = [("stored", 5, 10), ("stored", 11, 13), ("stored", 14, 14), ("unknown", 15, 15)]
    expected += [("stored", 16, 20), ("stored", 21, 22)]
    assert bucket.found(f"{stream}-5..{stream}-22") == expected


def test_an_id_is_found_after_hours_without_events_and_where_the_clock_was_set(bucket):
    stream, at = began(4)
    bucket.put(stream, at, [1])
    bucket.put(stream, at + 3 * DAY, [2])
    bucket.put(stream, at - 3 * DAY, [3])
    bucket.put(stream, at + 30 * DAY, [4])
    for number in range(1, 5):
        assert bucket.found(f"{stream}-{number}") == [("stored", number, number)]


@pytest.mark.parametrize("days", [-20_000, -1, 0, 7, 20_000])
def test_of_a_stream_that_nobody_knows_nothing_is_read(days, bucket):
    bucket.put(STREAM, time.time(), [1])
    stream, _ = began(days)
    assert bucket.found(f"{stream}-1") == [("unknown", 1, 1)]
    assert (bucket.store.requests < 30, bucket.store.gets) == (True, 0)


def test_in_a_part_of_the_prefix_no_other_hour_is_looked_at(bucket):
    stream, at = began(4)
    bucket.put(stream, at, [1])
    bucket.put(stream, at + DAY, [2])
    part = ids.partition(at, UTC)
    assert bucket.found(f"{stream}-1", f"{stream}-2", part=part) == [
        ("stored", 1, 1),
        ("unknown", 2, 2),
    ]
    assert bucket.store.requests < 5


def test_where_keys_are_too_many_that_is_told(bucket, monkeypatch):
    monkeypatch.setattr(receipts, "MOST_KEYS", 3)
    stream, at = began(4)
    for hour in range(5):
        bucket.put(STREAM, at - hour * 3600, [hour + 1])
    ((_, _, (found,)),) = bucket.look_up(f"{stream}-1").receipts
    assert "not among 3 keys" in found.where


def test_behind_the_end_of_a_stream_no_id_was_given(bucket):
    stream, at = began(1)
    bucket.put(stream, at, [1, 2])
    path = bucket.root / ids.record_key("raw", stream)
    path.parent.mkdir()
    path.write_text(f'{{"stream":"{stream}","events":2,"last_id":"{stream}-2"}}')
    ((_, _, (_, found)),) = bucket.look_up(f"{stream}-2..3").receipts
    assert found == ("unknown", 3, 3, "never given: its stream has ended with 2")


def test_an_object_that_cannot_be_read_is_told(bucket):
    stream, at = began(1)
    bucket.put(stream, at, [1])
    (path,) = bucket.root.rglob("*.gz")
    path.write_bytes(path.read_bytes()[:-9])
    report = bucket.look_up(f"{stream}-1")
    assert report.exit_code == 1
    assert [fault.place for fault in report.faults] == [str(path.relative_to(bucket.root))]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "an event's id is"),
        ("..", "an event's id is"),
        (f"{STREAM}-1..", "an event's id is"),
        (f"..{STREAM}-1", "an event's id is"),
        (f"{STREAM}-0", "an event's id is"),
        (f"{STREAM}-01", "an event's id is"),
        (f"{STREAM}-\u0661", "an event's id is"),
        (f"{STREAM}-1..0", "an event's id is"),
        (f"{STREAM.upper()}-1", "an event's id is"),
        (f"{STREAM}-{10**18}", "an event's id is"),
        (f"{STREAM}-1..{STREAM}-2..{STREAM}-3", "an event's id is"),
        (f"../../{STREAM}-1", "an event's id is"),
        (f"{STREAM}-5..{STREAM}-4", "before the first"),
        (f"{STREAM}-5..4", "before the first"),
        (f"{STREAM}-1..{'0' * 28}-2", "different streams"),
    ],
)
def test_what_is_no_receipt_is_refused_with_the_reason(text, why):
    with pytest.raises(ValueError, match=why):
        receipt(text)


@pytest.mark.parametrize(
    "text", [f"{STREAM}-4..{STREAM}-{10**17}", f"{STREAM}-4..{10**17}", f" {STREAM}-4..{10**17}\n"]
)
def test_a_range_may_be_written_as_it_is_answered_and_as_it_is_printed(text):
    assert receipt(text) == (STREAM, Span(4, 10**17), ())
