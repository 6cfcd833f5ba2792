"""A journal's bytes, whole and damaged in every place."""

import json

import pytest

from estat.disk import journal_file
from estat.disk.journal_file import BadRange, Content, Header
from estat.errors import LaterVersion, NotOurs
from estat.events import ids
from tests.unit.batches import STREAM, batch, lines

KEY = batch().key
HEADER = Header("events", KEY, ids.stem(KEY), STREAM, first=1, opened=1763017800.0)
GROUPS = [range(1, 3), range(3, 4), range(4, 7)]

FLIPS = [0x01, 0x10, 0x20, 0x80]


def parts(*, sealed=True):
    """Return header, groups and seal one by one."""
    groups = [journal_file.pack_group(split(numbers)) for numbers in GROUPS]
    seal = [journal_file.pack_seal(HEADER, 6)] if sealed else []
    return [journal_file.pack_header(HEADER), *groups, *seal]


def split(numbers):
    return lines(numbers).splitlines(keepends=True)


def spans(pieces):
    """Return where each part begins and ends."""
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    return list(zip([0, *ends], ends, strict=False))


def found(data):
    """Return the lines of each group that can be trusted."""
    return [data[group.start : group.end] for group in journal_file.parse(data).groups]


def all_but(*lost):
    return [lines(numbers) for number, numbers in enumerate(GROUPS) if number not in lost]


def every_flip(pieces, part):
    """Return the journal's bytes with each byte of one part flipped in several ways."""
    whole = b"".join(pieces)
    for position in range(*spans(pieces)[part]):
        for flip in FLIPS:
            data = bytearray(whole)
            data[position] ^= flip
            yield bytes(data)


def test_what_was_packed_comes_back():
    data = b"".join(parts())
    content = journal_file.parse(data)
    assert content.header == HEADER
    assert found(data) == all_but()
    assert [(group.first, group.events) for group in content.groups] == [(1, 2), (3, 1), (4, 3)]
    assert (content.bad, content.sealed) == ([], True)


def test_a_journal_without_its_last_line_is_not_sealed():
    data = b"".join(parts(sealed=False))
    content = journal_file.parse(data)
    assert found(data) == all_but()
    assert (content.bad, content.sealed) == ([], False)


def test_an_empty_file_has_nothing_and_nothing_bad():
    assert journal_file.parse(b"") == Content(None, [], [], sealed=False)


@pytest.mark.parametrize("number", range(len(GROUPS)))
def test_any_byte_of_a_group_flipped_costs_this_group_alone_and_tells_how_many_events(number):
    pieces = parts()
    start, end = spans(pieces)[1 + number]
    for data in every_flip(pieces, 1 + number):
        content = journal_file.parse(data)
        assert found(data) == all_but(number)
        assert content.bad == [BadRange(start, end, len(GROUPS[number]))]
        assert (content.header, content.sealed) == (HEADER, True)


def test_any_byte_of_the_last_group_flipped_in_an_open_journal_costs_this_group_alone():
    pieces = parts(sealed=False)
    start, end = spans(pieces)[-1]
    trailer = start + len(lines(GROUPS[-1]))
    for data in every_flip(pieces, -1):
        content = journal_file.parse(data)
        assert found(data) == all_but(len(GROUPS) - 1)
        assert [bad[:2] for bad in content.bad] == [(start, end)]
        if data[trailer:end] == pieces[-1][trailer - start :]:
            assert content.bad[0].events == len(GROUPS[-1])


def test_any_byte_of_the_first_line_flipped_costs_no_event_and_the_seal_still_knows_it():
    pieces = parts()
    for data in every_flip(pieces, 0):
        content = journal_file.parse(data)
        assert found(data) == all_but()
        assert content.bad == [BadRange(0, len(pieces[0]), 0)]
        assert content.header == HEADER


def test_an_open_journal_that_lost_its_first_line_has_no_header_and_all_its_events():
    pieces = parts(sealed=False)
    for data in every_flip(pieces, 0):
        content = journal_file.parse(data)
        assert found(data) == all_but()
        assert content.header is None


def test_any_byte_of_the_seal_flipped_costs_no_event_and_the_seal():
    pieces = parts()
    start, end = spans(pieces)[-1]
    for data in every_flip(pieces, -1):
        content = journal_file.parse(data)
        assert found(data) == all_but()
        assert content.bad == [BadRange(start, end, 0)]
        assert (content.header, content.sealed) == (HEADER, False)


def test_a_file_cut_off_anywhere_keeps_the_groups_before_and_has_one_bad_range_at_its_end():
    pieces = parts()
    whole, bounds = b"".join(pieces), spans(pieces)
    for size in range(1, len(whole)):
        data = whole[:size]
        content = journal_file.parse(data)
        complete = [end for _, end in bounds if end <= size]
        assert found(data) == all_but()[: max(0, len(complete) - 1)]
        assert content.header == (HEADER if complete else None)
        assert not content.sealed
        trusted = max(complete, default=0)
        assert content.bad == ([BadRange(trusted, size, 0)] if size > trusted else [])


def test_zeros_at_the_end_are_a_bad_range_without_events():
    for sealed in (True, False):
        data = b"".join(parts(sealed=sealed))
        content = journal_file.parse(data + bytes(512))
        assert found(data + bytes(512)) == all_but()
        assert content.bad == [BadRange(len(data), len(data) + 512, 0)]


def test_zeros_in_the_place_of_groups_are_counted_by_what_follows():
    pieces = parts()
    (start, _), (_, end) = spans(pieces)[1:3]
    data = pieces[0] + bytes(end - start) + b"".join(pieces[3:])
    assert found(data) == all_but(0, 1)
    assert journal_file.parse(data).bad == [BadRange(start, end, 3)]


@pytest.mark.parametrize("behind", [2, 3, 4])
def test_a_group_that_is_there_twice_counts_once(behind):
    pieces = parts()
    at = spans(pieces)[behind][1]
    data = b"".join([*pieces[: behind + 1], pieces[1], *pieces[behind + 1 :]])
    assert found(data) == all_but()
    assert journal_file.parse(data).bad == [BadRange(at, at + len(pieces[1]), 0)]


def test_a_group_whose_numbers_overlap_the_one_before_is_not_trusted():
    pieces = parts()[:2]
    data = b"".join([*pieces, journal_file.pack_group(split(range(2, 4)))])
    assert found(data) == [lines(GROUPS[0])]


def test_lines_that_no_journal_wrote_are_no_group_whatever_their_checksum():
    strange = [b"#1 2 3\n", b"text\n"]
    data = b"".join([parts()[0], journal_file.pack_group(strange), parts()[1]])
    assert found(data) == [lines(GROUPS[0])]


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("part", [0, -1])
def test_what_names_a_later_version_is_left_alone_whatever_its_checksum(monkeypatch, part, damaged):
    pieces = parts()
    monkeypatch.setattr(journal_file, "_FORMAT", 2)
    pieces[part] = [journal_file.pack_header(HEADER), journal_file.pack_seal(HEADER, 6)][part]
    monkeypatch.undo()
    if damaged:
        pieces[part] = pieces[part].replace(b"0000", b"1111")
    content = journal_file.parse(b"".join(pieces))
    assert isinstance(content.not_ours, LaterVersion)
    assert (content.header, content.bad) == (None, [])
    assert sum(group.events for group in content.groups) == 6


# --- what the numbers around a range tell


def lost(data, **known):
    return [bad.events for bad in journal_file.parse(data, **known).bad]


@pytest.mark.parametrize("kept", range(4))
def test_the_next_journals_first_number_tells_how_many_events_a_lost_tail_held(kept):
    whole = b"".join(parts(sealed=False))
    begin = spans(parts())[kept][1]
    missing = sum(len(group) for group in GROUPS[kept:])
    for tail in (b"", bytes(len(whole) - begin), lines([9]), b"?"):
        told = lost(whole[:begin] + tail, following=7)
        assert told == ([missing] if missing or tail else [])
    assert lost(b"", first=1, following=7) == [6]
    assert lost(bytes(100), first=1, following=7) == [6]


def test_a_number_that_does_not_fit_the_groups_is_not_believed():
    data = b"".join(parts(sealed=False)[:3])
    for wrong in ({"following": 3}, {"following": 10**18}, {"first": 10**17}):
        assert lost(data, **wrong) == []
    headless = b"".join(parts(sealed=False)[2:])
    assert lost(headless, first=5, following=9) == [2]
    assert lost(headless, first=1, following=9) == [2, 2]


def test_a_seal_that_another_batch_wrote_says_nothing():
    other = batch(seq=2).key
    seal = journal_file.pack_seal(Header("events", other, ids.stem(other), STREAM, 1, 5.0), 900)
    data = b"".join(parts(sealed=False))
    content = journal_file.parse(data + seal)
    assert (content.sealed, content.header) == (False, HEADER)
    assert content.bad == [BadRange(len(data), len(data + seal), 0)]


def test_a_seal_in_front_of_good_groups_costs_none_of_them():
    pieces = parts()
    data = b"".join([*pieces[:2], pieces[-1], *pieces[2:-1]])
    assert found(data) == all_but()
    assert lost(data) == [0]


def test_a_group_of_another_stream_or_far_ahead_is_none_of_the_batch():
    pieces = parts()
    strange = [lines([4], "0" * 28), lines([10**12])]
    for line in strange:
        data = b"".join([*pieces[:2], journal_file.pack_group([line]), *pieces[2:]])
        assert found(data) == all_but()
        assert lost(data) == [0]


@pytest.mark.parametrize(
    "change", [{"last": 7}, {"events": None}, {"events": -1}, {"events": 10**9}, {"last": True}]
)
def test_a_whole_seal_with_a_wrong_member_is_not_ours(change):
    facts = json.loads(journal_file.pack_seal(HEADER, 6).removeprefix(b"#sealed "))
    del facts["crc32"]
    facts |= change
    seal = b"#sealed " + journal_file._facts({k: v for k, v in facts.items() if v is not None})
    content = journal_file.parse(b"".join([*parts(sealed=False), seal]))
    assert type(content.not_ours) is NotOurs
    assert sum(group.events for group in content.groups) == 6


# --- torn, or something else


def test_what_an_append_leaves_that_was_cut_off_is_torn_and_nothing_else():
    pieces = parts()
    for piece in pieces:
        for size in range(len(piece)):
            assert journal_file.is_torn(piece[:size]), piece[:size]
    for piece in pieces[1:]:
        for data in (piece, bytes(len(piece)), piece[:-20] + bytes(20), piece[1:], b"?" + piece):
            assert not journal_file.is_torn(data), data


def test_damage_at_the_end_tells_the_events_that_can_be_read_in_it():
    pieces = parts(sealed=False)
    start, end = spans(pieces)[-1]
    whole = b"".join(pieces)
    for zeros, told in ((end - start, 0), (100, 2), (20, 3)):
        data = whole[: end - zeros] + bytes(zeros)
        assert journal_file.parse(data).bad == [BadRange(start, end, told)]
    huge = whole[:-1] + b"?" + b"#999999999 1 00000000\n" * 9
    assert lost(huge) == [(len(huge) - start) // 40]
