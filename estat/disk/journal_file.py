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
"""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from isal import isal_zlib

from estat.errors import NotOurs
from estat.events import ids

SUFFIX = ".journal"

_FORMAT = 1
_TRAILER = re.compile(
    # also in the middle of a line: the line end in front of it may be what is damaged, and
    # no event's line can hold either (it ends with a brace, and has no bare quote in a string)
    rb"#(\d{1,9}) (\d{1,12}) ([0-9a-f]{8})\n|#sealed (\{[^\n]*\})\n"
)
_CHECKED = re.compile(rb'(\{[^\n]*),"crc32":"([0-9a-f]{8})"\}')


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
    """A group that can be trusted: its lines are ``data[start:end]``."""

    first: int
    events: int
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
    last: int = 0  # the number of the last event, as the seal says
    #: What its header says that this server never writes; there is no ``header`` then.
    not_ours: str = ""


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


def parse(data: bytes) -> Content:
    """Find every group that can be trusted, also behind what can't.

    A journal that ends in the middle of a group has a bad range at its end.
    """
    try:
        return _parse(data, obey=True)
    except NotOurs as exc:
        return _parse(data, obey=False)._replace(not_ours=str(exc))


def _parse(data: bytes, *, obey: bool) -> Content:
    """Read groups, and headers if they are to be obeyed. Raises NotOurs for one that is not."""
    header, position = _first_line(data, obey)
    number = header.first if header else None  # of the event that must come next, if known
    sealed, last = False, 0
    groups: list[Group] = []
    bad: list[BadRange] = []
    for match in _TRAILER.finditer(data):
        if match[4] is None:
            group = _group(data, match)
            if group is None or group.start < position or group.first < (number or 1):
                continue
            start, following = group.start, group.first + group.events
        else:
            seal = _read(match[4]) if obey else None
            if seal is None:
                continue
            sealed, group = True, None
            header, last = header or seal[0], seal[1]
            start, following = match.start(), last + 1
        expected = group.first if group else following
        missing = max(0, expected - (number or expected))
        if start > position or missing:
            bad.append(BadRange(position, start, missing))
        if group:
            groups.append(group)
        position, number = match.end(), following
    if position < len(data):
        # nothing behind it tells what is missing; its own trailers do, if there are any
        told = sum(
            int(match[1])
            for match in _TRAILER.finditer(data, position)
            if match[1] and not _group(data, match)  # a good one is here for the second time
        )
        bad.append(BadRange(position, len(data), told))
    return Content(header, groups, bad, sealed, last)


def _group(data: bytes, match: re.Match[bytes]) -> Group | None:
    """Return the group in front of a trailer, unless a single byte of it is wrong."""
    events, size, crc32 = int(match[1]), int(match[2]), int(match[3], 16)
    end = match.start()
    start = end - size
    if start < 0:
        return None
    body = data[start:end]
    first = ids.id_of_line(body)
    if not first or isal_zlib.crc32(body) != crc32 or body.count(b"\n") != events:
        return None
    return Group(first.number, events, start, end)


def _first_line(data: bytes, obey: bool) -> tuple[Header | None, int]:
    """Return the header and where the groups begin; without one, they begin at once."""
    end = data.find(b"\n") + 1
    found = _read(data[: end - 1]) if end and obey else None
    return (found[0], end) if found else (None, 0)


def _facts(facts: dict[str, Any]) -> bytes:
    """Return facts as one line, with a checksum that tells damage to it."""
    line = json.dumps(facts, separators=(",", ":")).encode()
    return b'%b,"crc32":"%08x"}\n' % (line[:-1], isal_zlib.crc32(line))


def _read(line: bytes) -> tuple[Header, int] | None:
    """Return the header in a line of facts, and the last event's number (0: not sealed).

    None where the line is damaged. Raises NotOurs where it is whole, and this server does not
    write such a one.
    """
    match = _CHECKED.fullmatch(line)
    if not match or isal_zlib.crc32(match[1] + b"}") != int(match[2], 16):
        return None
    try:
        facts = json.loads(match[1] + b"}")
    except (ValueError, RecursionError) as exc:
        raise NotOurs(f"its header is not JSON: {exc}") from exc
    version = facts.get("estat_journal")
    if version != _FORMAT:
        raise NotOurs(f"its header has the format {ascii(version)[:50]}")
    header = Header(**{name: facts.get(name) for name in Header.__slots__})
    ids.check(header.bucket, header.key, header.name, header.stream)
    last = facts.get("last", 0)
    ids.check_number("first", header.first)
    ids.check_number("last", last)
    ids.check_time("opened", header.opened)
    return header, last
