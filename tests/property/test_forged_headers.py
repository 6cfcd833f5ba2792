"""Whatever a file on disk says, reading it ends in a batch of this server's form or a refusal."""

import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from estat.config import loading
from estat.disk import dlq_file, journal_file
from estat.disk.journal_recovery import events_in, recover_journal
from estat.errors import NotOurs, Unreadable
from estat.events import ids
from estat.events.gzip import gzip
from tests.support import forged
from tests.unit.batches import STREAM, batch
from tests.unit.journals import journal

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
