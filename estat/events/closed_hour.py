"""What a server says of one hour: its marker in the bucket, JSON.

    <RAW_PREFIX>_closed/dt=2026-11-27/hr=18/<server>.json
    {"server":"…","instance":"web-1","partition":"dt=2026-11-27/hr=18","tz":"UTC",
     "state":"closed","revision":1,"time":1764270001.2,"by":"…",
     "streams":{"<stream>":[[101,400]]},"elsewhere":{"dropped":{"<stream>":[[301,320]]}}}

    open      the server took events in the hour, and may still have some of them
    stopped   the same, and it has ended: they are on its disk
    closed    nothing of the hour is left there

``streams`` has the ids that it took in the hour, as far as they are known, and ``elsewhere`` those
among them that did not go to this bucket. ``revision`` counts how often it was closed. ``by`` is
the server that wrote it: another one, if that has taken the directory over.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from estat.events import ids, json_text
from estat.events.spans import Span, union

OPEN, STOPPED, CLOSED = "open", "stopped", "closed"

#: What becomes of a batch. Of one that was only opened nothing is known yet.
OPENED, STORED, DROPPED, HANDED_OVER = "opened", "stored", "dropped", "handed_over"
_ELSEWHERE = (DROPPED, HANDED_OVER)
FATES = (OPENED, STORED, *_ELSEWHERE)

Spans = dict[str, list[Span]]


class Note(NamedTuple):
    """What became of a batch, or of the ids of it that are told."""

    bucket: str
    key: str
    first: int
    last: int
    fate: str


@dataclass(frozen=True, slots=True)
class Marker:
    """What a server says of one hour."""

    server: str
    partition: str
    tz: str
    instance: str = ""
    state: str = OPEN
    revision: int = 0
    time: float = 0.0  # unix seconds, when it was written
    by: str = ""
    streams: Spans = field(default_factory=dict)
    elsewhere: dict[str, Spans] = field(default_factory=dict)

    def pack(self) -> bytes:
        """Return the object's bytes."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def then(self, notes: Iterable[Note], state: str, by: str, now: float) -> "Marker | None":
        """Return the marker with the notes added to it; None if nothing has to be written.

        A marker that was never written has the time 0. Without ``state`` the state stays as it is.
        """
        streams = {name: list(spans) for name, spans in self.streams.items()}
        elsewhere = {fate: dict(found) for fate, found in self.elsewhere.items()}
        for note in notes:
            fated = [elsewhere.setdefault(note.fate, {})] if note.fate in _ELSEWHERE else []
            for found in (streams, *fated):
                _add(found, note)
        now_in = state or (self.state if self.time else CLOSED)
        new = replace(self, state=now_in, streams=streams, elsewhere=elsewhere)
        if self.time and (new == self or (state == OPEN and self.state != CLOSED)):
            return None
        return replace(new, revision=self.revision + (now_in == CLOSED), by=by, time=round(now, 3))


def _add(found: Spans, note: Note) -> None:
    stream = ids.read_key(note.key).stream
    span = [Span(note.first, note.last)] if note.last >= note.first else []
    found[stream] = union([*found.get(stream, []), *span])


def unpack(body: bytes) -> Marker:
    """Read a marker; fields of later versions are passed over. Raises ValueError."""
    said = json_text.parse(body)
    try:
        words = {name: said[name] for name in Marker.__slots__}
        words["streams"] = _spans(said["streams"])
        words["elsewhere"] = {fate: _spans(found) for fate, found in said["elsewhere"].items()}
        marker = Marker(**words)
    except (TypeError, LookupError, AttributeError) as exc:
        raise ValueError(f"no marker of an hour: {exc}") from exc
    texts = (marker.server, marker.partition, marker.tz, marker.instance, marker.by)
    if not all(isinstance(text, str) for text in texts) or type(marker.revision) is not int:
        raise ValueError("no marker of an hour")
    if marker.state not in (OPEN, STOPPED, CLOSED) or type(marker.time) not in (int, float):
        raise ValueError("no marker of an hour")
    return marker


def _spans(said: dict[str, Any]) -> Spans:
    """Read the ids of streams. Raises ValueError, TypeError or AttributeError."""
    found = {name: [Span(first, last) for first, last in spans] for name, spans in said.items()}
    for name, spans in found.items():
        numbers = [number for span in spans for number in span]
        are_ids = all(type(number) is int and number > 0 for number in numbers)
        if ids.started_at(name) is None or not are_ids or any(a > b for a, b in spans):
            raise ValueError("no ids of a stream")
    return {name: union(spans) for name, spans in found.items()}
