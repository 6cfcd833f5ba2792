"""A journal's bytes become its batch again, and what is lost of them is told."""

import gzip

import pytest

from estat.config import loading
from estat.disk import journal_file
from estat.disk.journal_file import Header
from estat.disk.journal_recovery import Damage, events_in, recover_journal
from estat.events import ids
from tests.unit.batches import STREAM, batch, lines

KEY = batch().key
OPENED = 1763017800.0
HEADER = Header("file:/elsewhere", KEY, ids.stem(KEY), STREAM, first=1, opened=OPENED)
FIRST_LINE = journal_file.pack_header(HEADER)
SETTINGS = loading.load({"RAW_BUCKET": "events", "INSTANCE_ID": "web-2"}, env_file="")


def group(numbers):
    return journal_file.pack_group(lines(numbers).splitlines(keepends=True))


def spoilt(data):
    return bytes([data[0] ^ 1]) + data[1:]


def salvaged(data, seq=7):
    return recover_journal(data, STREAM, seq, SETTINGS)


@pytest.mark.parametrize("seal", [b"", journal_file.pack_seal(HEADER, 6)])
def test_a_whole_journal_becomes_its_batch_with_bucket_and_key_of_its_own(seal):
    found, damages = salvaged(FIRST_LINE + group(range(1, 4)) + group(range(4, 7)) + seal)
    assert (found.bucket, found.key, found.name) == (HEADER.bucket, HEADER.key, HEADER.name)
    assert (found.stream, found.first, found.last, found.events) == (STREAM, 1, 6, 6)
    assert (found.opened, damages) == (OPENED, [])
    assert gzip.decompress(found.payload) == lines(range(1, 7))


def test_a_journal_that_lost_its_first_line_is_stored_under_a_key_from_its_path_and_the_settings():
    found, damages = salvaged(spoilt(FIRST_LINE) + group(range(1, 4)))
    assert found.bucket == "events"
    assert found.key == f"raw/dt=2025-11-13/hr=07/1763017800_web-2-{STREAM}_000007.jsonl.gz"
    assert found.name == ids.stem(found.key)
    assert gzip.decompress(found.payload) == lines(range(1, 4))
    assert damages == [Damage(f"{found.name}-bad0", 0, spoilt(FIRST_LINE))]


def test_a_sealed_journal_that_lost_its_first_line_keeps_the_key_it_may_be_stored_under():
    seal = journal_file.pack_seal(HEADER, 3)
    found, damages = salvaged(spoilt(FIRST_LINE) + group(range(1, 4)) + seal)
    assert (found.bucket, found.key, found.opened) == (HEADER.bucket, HEADER.key, OPENED)
    assert [damage.events for damage in damages] == [0]


def test_a_bad_range_is_told_with_its_bytes_and_the_number_of_events_missing():
    bad = spoilt(group(range(3, 7)))
    found, damages = salvaged(FIRST_LINE + group(range(1, 3)) + bad + group(range(7, 9)))
    start = len(FIRST_LINE + group(range(1, 3)))
    assert damages == [Damage(f"{HEADER.name}-bad{start}", 4, bad)]
    assert (found.first, found.last, found.events) == (1, 8, 4)
    assert gzip.decompress(found.payload) == lines([1, 2, 7, 8])


def test_each_bad_range_has_a_name_of_its_own():
    data = FIRST_LINE
    for first in range(1, 9, 2):
        data += spoilt(group(range(first, first + 1))) + group(range(first + 1, first + 2))
    names = [damage.name for damage in salvaged(data).damages]
    assert len(set(names)) == 4


def test_a_journal_whose_only_group_is_bad_has_no_batch():
    bad = spoilt(group(range(1, 4)))
    seal = journal_file.pack_seal(HEADER, 3)
    found, damages = salvaged(FIRST_LINE + bad + seal)
    assert found is None
    assert damages == [Damage(f"{HEADER.name}-bad{len(FIRST_LINE)}", 3, bad)]


def test_bytes_in_which_nothing_can_be_trusted_are_named_after_their_path():
    found, damages = salvaged(b"nothing of ours")
    assert found is None
    (damage,) = damages
    assert damage.data == b"nothing of ours"
    opened = int(ids.started_at(STREAM))
    assert damage.name == f"{opened}_web-2-{STREAM}_000007-bad0"


@pytest.mark.parametrize("data", [b"", FIRST_LINE])
def test_a_journal_without_a_group_has_neither_batch_nor_damage(data):
    assert salvaged(data) == (None, [])


def test_events_are_counted_as_far_as_they_can_be_trusted():
    data = FIRST_LINE + group(range(1, 4)) + spoilt(group(range(4, 6))) + group(range(6, 7))
    assert events_in(data) == 4
