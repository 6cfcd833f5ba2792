r"""The format of a journal: the lines of a batch that is not stored yet.

    {"estat_journal":1,"bucket":…,"key":…,"stream":…,"first":1,…,"crc32":"…"}
    {"id":"…-1",…}              a group: the lines of the requests that were
    {"id":"…-2",…}              appended together, and one trailer
    #2 311 5f0c9a1e             events, bytes and CRC-32 of its lines
    #sealed {…,"events":2,"last":2,"crc32":"…"}

A group counts only with its trailer, so one that was cut off in the middle was
never there. Whatever is damaged, the trailers tell where the next good group
begins. The last line says that the batch was complete; it repeats the header,
so that a batch that may have been uploaded still knows its key when the first
line is lost.

Whatever a later version changes, its first line and its seal begin as above, with its
number in the place of the 1. Such a journal is left alone.
"""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from isal import isal_zlib

from estat.disk import files
from estat.errors import NotOurs
from estat.events import ids

SUFFIX = ".journal"

_FORMAT = 1

#: A header line is no longer: a key has 1,024 characters, a path 4,096.
_HEADER_BYTES = 16 * 1024
_TRAILER = re.compile(
    # also in the middle of a line: the line end in front of it may be what is damaged, and
    # no event's line can hold either (it ends with a brace, and has no bare quote in a string)
    rb"#(\d{1,9}) (\d{1,12}) ([0-9a-f]{8})\n|#sealed (\{[^\n]*\})\n"
)
_VERSION = re.compile(rb'\{"estat_journal":(\d{1,9})[,}]')
_CHECKED = re.compile(rb'(\{[^\n]*),"crc32":"([0-9a-f]{8})"\}')

#: A line is no shorter: it has its event's id at least.
_SHORTEST_LINE = len(b'{"id":"-1"}\n') + 28

#: What an append that was cut off may have at its end: a trailer, or else the beginning of a line.
_TRAILER_START = re.compile(rb"#(\d{1,9}( (\d{1,12}( [0-9a-f]{0,8})?)?)?)?")
_LINE_STARTS = (ids.LINE_START, b"#sealed {", b'{"estat_journal":')


@dataclass(frozen=True, slots=True)
class Header:
    """What a journal knows of its batch from the beginning."""

    bucket: str
    key: str
    name: str  # the DLQ file's, without directory or suffix
    stream: str
    first: int  # number of the first event
    opened: float  # unix seconds


class Group(NamedTuple):
    """A group that can be trusted: its lines are ``data[start:end]``, then comes its trailer."""

    stream: str
    first: int
    events: int
    start: int
    end: int
    trailer_end: int

    @property
    def following(self) -> int:
        """The number behind its last event."""
        return self.first + self.events


class _Seal(NamedTuple):
    """A last line: the header, the number behind the last event, and where the line is."""

    header: Header
    following: int
    start: int
    end: int


class BadRange(NamedTuple):
    """Bytes that can't be trusted, and how many events must have been among them.

    Without any bytes: events that are missing though nothing else is wrong.
    """

    start: int
    end: int
    events: int


class Content(NamedTuple):
    """What a journal holds, as far as it can be trusted."""

    header: Header | None
    groups: list[Group]
    bad: list[BadRange]
    sealed: bool
    following: int = 0  # the number behind the last event that is told of, if it is known
    #: Why the journal is not this server's to read; there is no ``header`` then.
    not_ours: NotOurs | None = None


def pack_header(header: Header) -> bytes:
    """Return the first line."""
    return _facts({"estat_journal": _FORMAT, **asdict(header)})


def pack_group(lines: list[bytes]) -> bytes:
    """Return the bytes of a group."""
    body = b"".join(lines)
    return b"%b#%d %d %08x\n" % (body, len(lines), len(body), isal_zlib.crc32(body))


def pack_seal(header: Header, events: int) -> bytes:
    """Return the last line of a batch with so many events."""
    last = header.first + events - 1
    facts = {"estat_journal": _FORMAT, **asdict(header), "events": events, "last": last}
    return b"#sealed " + _facts(facts)


def parse(data: bytes, first: int = 0, following: int = 0) -> Content:
    """Find every group that can be trusted, also behind what can't.

    What the stream's other journals know of this one: the number of its ``first`` event, and
    the one ``following`` its last; 0: they do not. A journal that ends in the middle of a
    group has a bad range at its end.
    """
    matches = list(_TRAILER.finditer(data))
    try:
        return _parse(data, matches, first, following)
    except NotOurs as exc:
        groups = [group for match in matches if (group := _group(data, match))]
        return Content(None, groups, [], sealed=False, not_ours=exc)


def read_header(path: str) -> Header | None:
    """Return the header of a journal by its first line alone; None where that is damaged.

    Blocks. Raises OSError, and NotOurs.
    """
    return _first_line(files.read_beginning(path, _HEADER_BYTES))[0]


def is_torn(tail: bytes) -> bool:
    """Tell whether bytes may be what an append has left that was cut off, or is going on.

    It has no trailer yet, so none of its events was acknowledged. What else stands at the end
    of a file, zeros say, stands where something else was.
    """
    *lines, rest = tail.split(b"\n")
    if not all(map(ids.id_of_line, lines)) or b"\0" in tail or _TRAILER.search(tail):
        return False
    return _TRAILER_START.fullmatch(rest) is not None or any(
        rest.startswith(start[: len(rest)]) for start in _LINE_STARTS
    )


def _parse(data: bytes, matches: list[re.Match[bytes]], first: int, following: int) -> Content:
    """Read first line, seal and groups. Raises NotOurs for a line that is not obeyed."""
    header, position = _first_line(data)
    seals = [seal for match in matches if match[4] and (seal := _seal(match))]
    header = header or (seals[-1].header if seals else None)
    # the seal of another batch says nothing of this one
    seal = next((seal for seal in reversed(seals) if seal.header == header), None)
    groups = _trusted(data, matches, header, position)
    first = header.first if header else first
    if groups and groups[0].first < first:
        first = 0  # whoever said so was wrong
    following = seal.following if seal else following
    if not (groups[-1].following if groups else first) <= following <= first + ids.MAX_EVENTS:
        following = 0
    bad = []
    number = first
    for group in groups:
        if group.start > position or group.first > (number or group.first):
            bad.append(_bad_range(data, position, group.start, number, group.first))
        position, number = group.trailer_end, group.following
    end = seal.start if seal and seal.start >= position else len(data)
    if position < end or following > number:
        bad.append(_bad_range(data, position, end, number, following))
        number += bad[-1].events if number else 0
    if seal and position <= seal.end < len(data):
        bad.append(BadRange(seal.end, len(data), 0))
    return Content(header, groups, bad, seal is not None, number)


def _trusted(
    data: bytes, matches: list[re.Match[bytes]], header: Header | None, position: int
) -> list[Group]:
    """Return the groups behind a position whose numbers grow, and are those of one batch."""
    stream, first = (header.stream, header.first) if header else ("", 0)
    groups: list[Group] = []
    number = first
    for match in matches:
        group = _group(data, match)
        if group is None or group.start < position or group.first < number:
            continue
        stream, first = stream or group.stream, first or group.first
        if group.stream == stream and group.following <= first + ids.MAX_EVENTS:
            groups.append(group)
            position, number = group.trailer_end, group.following
    return groups


def _bad_range(data: bytes, start: int, end: int, number: int, following: int) -> BadRange:
    """Return the range between the event before ``number`` and the one at ``following``.

    Where one of them is not known, its own trailers and lines tell how many events it held, as
    far as they can be read.
    """
    if number and following:
        return BadRange(start, end, following - number)
    bad = data[start:end]
    if not following and bad and is_torn(bad):
        return BadRange(start, end, 0)
    trailers = _TRAILER.finditer(bad)
    # a good group is here for the second time
    told = sum(int(match[1]) for match in trailers if match[1] and not _group(bad, match))
    seen = len({event for event in ids.ids_in(bad) if event.number >= number})
    most = min(ids.MAX_EVENTS, len(bad) // _SHORTEST_LINE)
    return BadRange(start, end, min(max(told, seen), most))


def _group(data: bytes, match: re.Match[bytes]) -> Group | None:
    """Return the group in front of a trailer, unless a single byte of it is wrong."""
    if match[4] is not None:
        return None
    events, size, crc32 = int(match[1]), int(match[2]), int(match[3], 16)
    end = match.start()
    start = end - size
    if start < 0:
        return None
    body = data[start:end]
    first = ids.id_of_line(body)
    if not first or isal_zlib.crc32(body) != crc32 or body.count(b"\n") != events:
        return None
    if not body.endswith(b"\n"):
        return None
    return Group(first.stream, first.number, events, start, end, match.end())


def _first_line(data: bytes) -> tuple[Header | None, int]:
    """Return the header and where the groups begin; without one, they begin at once."""
    line, end, _ = data.partition(b"\n")
    facts = _read(line)
    return (_header(facts), len(line + end)) if facts and end else (None, 0)


def _seal(match: re.Match[bytes]) -> _Seal | None:
    """Return a seal; None where it is damaged. Raises NotOurs as ``_read`` does."""
    facts = _read(match[4])
    if facts is None:
        return None
    header = _header(facts)
    ids.check_number("events", facts.get("events"), ids.MAX_EVENTS)
    following = header.first + facts["events"]
    if facts.get("last") != following - 1:
        raise NotOurs("the last number in its seal is not that of its events")
    return _Seal(header, following, match.start(), match.end())


def _facts(facts: dict[str, Any]) -> bytes:
    """Return facts as one line, with a checksum that tells damage to it."""
    line = json.dumps(facts, separators=(",", ":")).encode()
    return b'%b,"crc32":"%08x"}\n' % (line[:-1], isal_zlib.crc32(line))


def _read(line: bytes) -> dict[str, Any] | None:
    """Return the facts of a line; None where it is damaged.

    Raises LaterVersion whatever its checksum is: nobody knows what a later one covers. Raises
    NotOurs where it is whole, and this server does not write such a one.
    """
    version = _VERSION.match(line)
    if version:
        ids.check_version(int(version[1]), _FORMAT)
    match = _CHECKED.fullmatch(line)
    if not match or isal_zlib.crc32(match[1] + b"}") != int(match[2], 16):
        return None
    try:
        facts: dict[str, Any] = json.loads(match[1] + b"}")
    except (ValueError, RecursionError) as exc:
        raise NotOurs(f"its header is not JSON: {exc}") from exc
    if facts.get("estat_journal") != _FORMAT:
        raise NotOurs(f"its header has the format {ascii(facts.get('estat_journal'))[:50]}")
    return facts


def _header(facts: dict[str, Any]) -> Header:
    """Return the header in a line's facts. Raises NotOurs if this server does not write such."""
    words = ("bucket", "key", "name", "stream")
    ids.check(*map(facts.get, words))
    ids.check_number("first", facts.get("first"))
    ids.check_time("opened", facts.get("opened"))
    if not facts["first"]:
        raise NotOurs("its first event has the number 0")
    return Header(*map(facts.__getitem__, (*words, "first", "opened")))
