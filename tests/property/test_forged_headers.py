"""Whatever a file on disk says, reading it ends in a batch of this server's form or a refusal."""

import itertools
import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from estat.config import loading
from estat.disk import dlq_file, journal_file
from estat.disk.journal_recovery import events_in, recover_journal
from estat.errors import NotOurs, Unreadable
from estat.events import ids
from estat.events.gzip import gunzip, gzip
from tests.support import forged
from tests.unit.batches import STREAM, batch
from tests.unit.journals import JournalFile, journal

SETTINGS = loading.load({"RAW_BUCKET": "events"}, env_file="")
BATCH, HEADER = batch(), journal().header

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
paths = st.lists(
    st.sampled_from(["..", ".", "", "/", "raw", "file:", "\\", "\0", "\n", BATCH.key, BATCH.name])
).map("/".join)
values = anything | paths | st.integers(-(10**40), 10**40)


def changes(fields):
    return st.dictionaries(st.sampled_from(fields), values, max_size=4)


DLQ_FIELDS = [
    "estat_dlq",
    "bucket",
    "key",
    "name",
    "stream",
    "first",
    "last",
    "events",
    "bytes",
    "crc32",
    "opened",
    "error",
    "reason",
]
JOURNAL_FIELDS = ["estat_journal", "bucket", "key", "name", "stream", "first", "opened", "last"]


def is_of_our_form(bucket, key, name, stream):
    ids.check(bucket, key, name, stream)
    parts = f"{key}/{name}".split("/")
    assert not {"", ".", ".."} & set(parts)
    assert "/" not in name + stream
    assert (key + name).isprintable()


@given(changes(DLQ_FIELDS))
def test_a_dlq_file_is_a_batch_of_ours_or_refused(change):
    with suppress(Unreadable):
        found = dlq_file.unpack(forged.dlq_bytes(BATCH, **change))
        is_of_our_form(found.bucket, found.key, found.name, found.stream)


@given(changes(JOURNAL_FIELDS))
def test_a_journal_is_a_batch_of_ours_or_refused_and_its_events_are_counted(change):
    data = forged.journal_bytes(HEADER, range(1, 11), **change)
    with suppress(NotOurs):
        found = recover_journal(data, STREAM, 1, SETTINGS).batch
        if found:
            is_of_our_form(found.bucket, found.key, found.name, found.stream)
    if not {"first", "last"} & change.keys():
        assert events_in(data) == 10


@given(st.binary(), values)
def test_no_bytes_are_taken_for_a_file(noise, value):
    for data in (
        noise,
        gzip(noise),
        gzip(json.dumps(value).encode() + b"\n") + noise,
        gzip(b'{"estat_dlq":1,"x":' + noise),
    ):
        with suppress(Unreadable):
            dlq_file.unpack(data)
    with suppress(NotOurs):
        recover_journal(noise, STREAM, 1, SETTINGS)
    with suppress(NotOurs):
        recover_journal(journal_file._facts({"a": value}) + noise, STREAM, 1, SETTINGS)
    with suppress(NotOurs):
        recover_journal(
            journal_file.pack_group([noise.replace(b"\n", b"") + b"\n"]), STREAM, 1, SETTINGS
        )


@given(st.text(), st.integers(0, 10**30))
def test_a_files_name_counts_only_what_the_books_can_hold(text, number):
    for name in (text, f"{number}_{text}-{STREAM}_1.{number}.jsonl.gz"):
        events, opened = dlq_file.parse_name(name)
        assert 0 <= events < 10**9
        assert opened is None or 0 <= opened < 10**12


# --- bytes that went bad


def whole_journal(stream: str, first: int) -> bytes:
    made = JournalFile(stream=stream, first=first)
    for start, size in ((0, 2), (2, 1), (3, 4)):
        made.group(range(first + start, first + start + size))
    return made.seal(7).data


JOURNAL, OTHER = whole_journal(STREAM, 1), whole_journal(STREAM[:-1] + "0", 8)
DLQ_FILE = forged.dlq_bytes(BATCH)

positions = st.integers(0, 10**6)
changes_of_bytes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "zero", "duplicate", "splice", "remove"]),
        positions,
        positions,
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=4,
)


def spoilt(data: bytes, other: bytes, changes: list[tuple[str, int, int, int]]) -> bytes:
    """Return bytes after faults of a disk, one after the other."""
    for kind, one, two, bits in changes:
        start, end = sorted((one % (len(data) + 1), two % (len(data) + 1)))
        middle = data[start:end]
        if kind == "flip":
            middle = bytes(byte ^ bits for byte in middle[:1]) + middle[1:]
        elif kind == "zero":
            middle = bytes(len(middle))
        elif kind == "duplicate":
            middle *= 2
        elif kind == "splice":
            middle = other[start:end]
        elif kind == "remove":
            middle = b""
        data = data[:start] + middle + (b"" if kind == "cut" else data[end:])
    return data


@given(changes_of_bytes, st.integers(0, 10), st.integers(0, 10**19))
def test_of_a_journal_that_went_bad_every_group_is_whole_or_in_a_range(changes, first, following):
    data = spoilt(JOURNAL, OTHER, changes)
    content = journal_file.parse(data, first, following)
    seen = []
    for group in content.groups:
        lines = data[group.start : group.end]
        assert lines in JOURNAL or lines in OTHER
        numbers = [event.number for event in ids.ids_in(lines)]
        assert numbers == list(range(group.first, group.following))
        seen += numbers
    assert seen == sorted(set(seen))
    assert len({group.stream for group in content.groups}) <= 1 or content.not_ours
    ranges = sorted([*content.bad, *((g.start, g.trailer_end, g.events) for g in content.groups)])
    assert all(0 <= events <= ids.MAX_EVENTS for _, _, events in ranges)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(ranges)) or content.not_ours
    with suppress(NotOurs):
        found = recover_journal(data, STREAM, 1, SETTINGS)
        assert sum(len(damage.data) for damage in found.damages) <= len(data)
        for damage in found.damages:
            parsed = dlq_file.parse_name(dlq_file.name_for(damage.name, damage.events))
            assert parsed.events == damage.events
        if found.batch:
            assert gunzip(found.batch.payload).count(b"\n") == found.batch.events == len(seen)
            dlq_file.unpack(b"".join(dlq_file.pack(found.batch, "recovered", "")))


@given(changes_of_bytes)
def test_a_dlq_file_that_went_bad_is_what_it_was_or_refused(changes):
    data = spoilt(DLQ_FILE, forged.dlq_bytes(batch(seq=2)), changes)
    for read in (dlq_file.unpack, dlq_file.read_header):
        with suppress(Unreadable):
            read(data)
    with suppress(Unreadable):
        assert dlq_file.unpack(data) in (BATCH, batch(seq=2))
