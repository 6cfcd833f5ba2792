"""What the audit takes from one object or record: its ids, and what can't be read.

By metadata where that can be true (as many events as there are ids from the
first to the last, of the stream in the key), else from the lines, each strict
JSON with an id of ours. Of an object only spans of ids are kept, whatever its size. No I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from estat.audit.spans import Span, Stored, runs
from estat.events import gzip, ids, stored_line

#: Unreadable lines of one object that are kept with their reason; all are counted.
MAX_LINES_TOLD = 100


class Fault(NamedTuple):
    """A line, or with ``line`` None a whole object, that can't be read."""

    place: str  # the object's key or the file's path
    line: int | None  # from 1
    reason: str


@dataclass(slots=True)
class Content:
    """What an object holds: spans of ids by stream."""

    place: str
    events: int = 0
    spans: dict[str, list[Span]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    bad_lines: int = 0
    was_read: bool = False  # else told by its metadata

    def stored(self, stream: str) -> list[Stored]:
        """Return the spans of a stream as evidence."""
        return [Stored(first, last, self.place) for first, last in self.spans[stream]]


class Record(NamedTuple):
    """A stream's record: it ended cleanly after ``last`` events."""

    stream: str
    instance: str
    last: int


def from_metadata(key: str, metadata: Mapping[str, str]) -> Content | None:
    """Return what an object's metadata says; None if its lines must tell instead."""
    try:
        events = int(metadata["events"])
        stream, first = _parsed(metadata["first-id"])
        last_stream, last = _parsed(metadata["last-id"])
    except (KeyError, ValueError):
        return None
    if stream != last_stream or events != last - first + 1 or events < 1:
        return None
    if stream_of(key) not in (None, stream):
        return None
    return Content(key, events, {stream: [Span(first, last)]})


def from_body(key: str, body: bytes) -> Content:
    """Return what an object's lines say, every one of them parsed."""
    try:
        lines = gzip.gunzip(body)
    except ValueError as exc:
        return damaged(key, str(exc))
    return from_lines(key, lines) if lines else damaged(key, "holds no events")


def from_lines(place: str, lines: bytes) -> Content:
    """Return what lines of JSON say."""
    content = Content(place, was_read=True)
    numbers: dict[str, list[int]] = {}
    for index, line in enumerate(lines.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            stream, number = _identified(line)
        except ValueError as exc:
            content.bad_lines += 1
            if len(content.faults) < MAX_LINES_TOLD:
                content.faults.append(Fault(place, index, str(exc)))
        else:
            numbers.setdefault(stream, []).append(number)
            content.events += 1
    content.spans = {stream: runs(found) for stream, found in numbers.items()}
    return content


def damaged(place: str, reason: str) -> Content:
    """Return the content of an object that can't be read at all."""
    return Content(place, faults=[Fault(place, None, reason)], was_read=True)


def record(key: str, body: bytes) -> Record:
    """Read a stream's record. Raises ValueError if it can't be true."""
    said = stored_line.parse(body.decode())
    stream = stream_of_record(key)
    if not isinstance(said, dict) or said.get("stream") != stream:
        raise ValueError("not the record of its stream")
    last = said.get("events")
    if type(last) is not int or last < 0 or said.get("last_id") != f"{stream}-{last}":
        raise ValueError("its number of events and its last id do not agree")
    return Record(stream, str(said.get("instance", "")), last)


def stream_of(name: str) -> str | None:
    """Return the stream that the name of an object or a DLQ file tells."""
    found = ids.read_name(name)
    return found.stream if found else None


def stream_of_record(key: str) -> str:
    """Return the stream that the key of a record tells."""
    return key.rpartition("/")[2].removesuffix(".json")


def instance_of(name: str) -> str:
    """Return the instance that the name of an object tells; empty if it is not one of ours."""
    found = ids.read_name(name)
    return found.instance if found else ""


def is_object(key: str) -> bool:
    """Tell whether an object's name is that of a batch; one of the DLQ has a count behind it."""
    found = ids.read_name(key)
    return key.endswith(ids.SUFFIX) and (found is None or found.events is None)


def _identified(line: bytes) -> tuple[str, int]:
    match stored_line.parse(line.decode()):
        case {"id": str(found)}:
            return _parsed(found)
    raise ValueError("no JSON object with an id")


def _parsed(text: str) -> ids.EventId:
    found = ids.event_id(text)
    if not found:
        raise ValueError(f"{text[:60]!r} is no id of ours")
    return found
