"""A journal's bytes, whole and damaged in every place."""

import pytest

from estat.disk import journal_file
from estat.disk.journal_file import BadRange, Content, Header
from estat.events import ids
from tests.unit.batches import STREAM, batch, lines

KEY = batch().key
HEADER = Header("events", KEY, ids.stem(KEY), STREAM, first=1, opened=1763017800.0)
GROUPS = [range(1, 3), range(3, 4), range(4, 7)]
SEALED_AT = 3  # the part behind the groups

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


def test_a_first_line_of_another_format_is_not_taken_for_ours(monkeypatch):
    monkeypatch.setattr(journal_file, "_FORMAT", 2)
    other = journal_file.pack_header(HEADER)
    monkeypatch.undo()
    content = journal_file.parse(other + parts()[1])
    assert content.header is None
    assert content.bad == [BadRange(0, len(other), 0)]
    assert len(content.groups) == 1
