"""What the audit takes from one object or record: its ids, and what can't be read.

By metadata where that can be true (as many events as there are ids from the
first to the last, of the stream in the key), else from the lines, each strict
JSON with an id of ours. Of an object only spans of ids are kept, whatever it inflates to. No I/O.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from estat.events import gzip, ids, json_text
from estat.events.spans import Span, Stored, append, joined
from estat.stores.store import BYTES, Head

#: Unreadable lines of one object that are kept with their reason; all are counted.
MAX_LINES_TOLD = 100

#: The most spans that are kept of an object. A batch has 1,000,000 events at most, each a span
#: where somebody has sorted them otherwise.
_MAX_SPANS = 1_000_000

#: The metadata that tells an object's events.
_OF_IDS = ("events", "first-id", "last-id")
_SHOWN_CHARS = 60


class Fault(NamedTuple):
    """A line, or with ``line`` None a whole object, that can't be read, or is not as described."""

    place: str  # the object's key or the file's path
    line: int | None  # from 1
    reason: str

    def __str__(self) -> str:
        line = "" if self.line is None else f" line {self.line}"
        return f"{self.place}{line}: {self.reason}"


class Record(NamedTuple):
    """A stream's record: it ended cleanly after ``last`` events."""

    stream: str
    instance: str
    last: int


@dataclass(slots=True)
class Content:
    """What an object or a file on disk holds: spans of ids by stream."""

    place: str
    events: int = 0
    spans: dict[str, list[Span]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    differs: list[Fault] = field(default_factory=list)  # in what from its metadata
    bad_lines: int = 0
    was_read: bool = False  # else told by its metadata
    # the rest is of files on disk
    record: Record | None = None  # of the only stream in ``spans``, which has no ids then
    audited: bool = False  # it goes to the audited bucket; a copy of a bucket has another name
    lost: dict[str, int] = field(default_factory=dict)  # unreadable events by stream

    def stored(self, stream: str) -> list[Stored]:
        """Return the spans of a stream as evidence."""
        return [Stored(first, last, self.place) for first, last in self.spans.get(stream, [])]


def from_metadata(key: str, metadata: Mapping[str, str]) -> Content | None:
    """Return what an object's metadata says; None if its lines have to be read."""
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
    content = from_lines(key, gzip.gunzip_lines(body))
    return content if content.events or content.faults else damaged(key, "holds no events")


def from_lines(place: str, lines: Iterable[bytes]) -> Content:
    """Return what lines of JSON say; if reading them raises ValueError, that they are damaged."""
    content = Content(place, was_read=True)
    spans = 0
    try:
        for index, line in enumerate(lines, start=1):
            try:
                stream, number = _identified(line)
            except ValueError as exc:
                content.bad_lines += 1
                if len(content.faults) < MAX_LINES_TOLD:
                    content.faults.append(Fault(place, index, str(exc)))
                continue
            content.events += 1
            spans += append(content.spans.setdefault(stream, []), number)
            if spans > _MAX_SPANS:
                return damaged(place, f"its ids are in over {_MAX_SPANS:,} ranges")
    except ValueError as exc:
        return damaged(place, str(exc))
    content.spans = {stream: joined(found) for stream, found in content.spans.items()}
    return content


def differs_in_length(place: str, head: Head) -> list[Fault]:
    """Return whether an object's length differs from that in its metadata."""
    told = head.metadata.get(BYTES)
    if told is None or head.whole or head.size_bytes < 0:
        return []
    text = f"has {head.size_bytes:,} bytes, its metadata says {told[:_SHOWN_CHARS]}"
    return [Fault(place, None, text)]


def differs_in_ids(content: Content, head: Head) -> list[Fault]:
    """Return whether the ids in an object differ from those in its metadata."""
    described = [head.metadata.get(name, "")[:_SHOWN_CHARS] for name in _OF_IDS]
    is_damaged = any(fault.line is None for fault in content.faults)
    if is_damaged or not any(described):
        return []
    actual = [str(content.events), "", ""]
    for stream, spans in content.spans.items():
        first, last = min(spans).first, max(span.last for span in spans)
        actual[1:] = f"{stream}-{first}", f"{stream}-{last}"
    if described == actual and len(content.spans) == 1:
        return []
    others = f", and others of {len(content.spans) - 1} streams" if len(content.spans) > 1 else ""
    text = "its metadata says {} events, {} to {}; its lines {}, {} to {}"
    return [Fault(content.place, None, text.format(*described, *actual) + others)]


def damaged(place: str, reason: str) -> Content:
    """Return the content of an object that can't be read at all."""
    return Content(place, faults=[Fault(place, None, reason)], was_read=True)


def record(key: str, body: bytes) -> Record:
    """Read a stream's record. Raises ValueError if it can't be true."""
    said = json_text.parse(body)
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
    match json_text.parse(line):
        case {"id": str(found)}:
            return _parsed(found)
    raise ValueError("no JSON object with an id")


def _parsed(text: str) -> ids.EventId:
    found = ids.event_id(text)
    if not found:
        raise ValueError(f"{text[:60]!r} is no id of ours")
    return found
