"""Whether an hour is complete, from the bucket alone: the servers' markers, and the objects.

    complete   the hour is over, every server that said that it took events in it has closed it,
               and every id that they tell is in an object of the hour
    open       the hour is not over, or a server has not closed it
    gap        an id that a server tells is in no object, or something can't be read

A server is known by its marker (see ``events.closed_hour``). A stream with objects in the hour that
no marker names belongs to a server of the same instance that has not closed the hour. If there is
no such server, the stream counts as a server of its own: it is of an earlier version, or may not
write markers. A server that is given up no longer decides, but is still reported.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from estat.audit import stored
from estat.audit.reader import Reader
from estat.audit.report import ranges
from estat.audit.stored import Fault
from estat.audit.target import Target
from estat.events import closed_hour, ids, json_text
from estat.events.closed_hour import CLOSED, STOPPED, Marker, Spans
from estat.events.spans import Span, subtract, total_ids, union

COMPLETE, OPEN, GAP = "complete", "open", "gap"

#: The exit status of every state, the worst first.
_EXIT_CODES = {GAP: 1, OPEN: 3, COMPLETE: 0}

#: An hour is not over before: a server says that it took events in it a moment after it did.
_SETTLED_SECONDS = 60

_JSON = ".json"
#: The end of the key that says that a server is given up.
_GIVEN_UP = ".given-up.json"

_MEANING = {
    "": "did not say that it took events: of an earlier version, or it may not write here",
    OPEN: "has not closed the hour: it stores what is left of it, or its disk waits for a server",
    STOPPED: "has stopped, and left events on its disk: start a server with its DLQ_DIR",
    CLOSED: "has closed the hour",
}


class _GivenUp(NamedTuple):
    """A server that is given up, and when, in unix seconds."""

    server: str
    time: float


@dataclass(slots=True)
class ServerHour:
    """What is known of one server's hour."""

    marker: Marker
    given_up: float | None = None  # when, in unix seconds
    #: Of its streams, what is stored; then ids that are not, though they were given.
    stored: Spans = field(default_factory=dict)
    missing: Spans = field(default_factory=dict)

    @property
    def state(self) -> str:
        """COMPLETE, OPEN or GAP."""
        if self.given_up is not None:
            return COMPLETE
        if self.marker.state != CLOSED:
            return OPEN
        return GAP if self.missing else COMPLETE

    def compare(self, stored: Spans) -> None:
        """Find out which ids are not in ``stored``; two servers may name the same stream."""
        known = {name: list(spans) for name, spans in self.marker.streams.items()}
        if self.marker.state != CLOSED:
            # between the first and the last id that were met
            for name, spans in self.stored.items():
                known[name] = union([*known.get(name, []), Span(spans[0].first, spans[-1].last)])
        for name, spans in known.items():
            missing = subtract(spans, stored.get(name, []))
            if missing:
                self.missing[name] = missing


@dataclass(slots=True)
class HourReport:
    """The outcome of one audit of an hour."""

    target: Target
    is_over: bool
    servers: list[ServerHour]
    faults: list[Fault] = field(default_factory=list)
    objects: int = 0
    events: int = 0

    @property
    def state(self) -> str:
        """COMPLETE, OPEN or GAP."""
        states = {server.state for server in self.servers}
        if self.faults or GAP in states:
            return GAP
        return COMPLETE if self.is_over and OPEN not in states else OPEN

    @property
    def exit_code(self) -> int:
        """The command's exit status: 0, 1 or 3."""
        return _EXIT_CODES[self.state]

    def as_json(self) -> dict[str, Any]:
        """Return everything, as ``--json`` prints it; spans are pairs of first and last id."""
        return asdict(self) | {
            "target": str(self.target),
            "state": self.state,
            "exit_code": self.exit_code,
            "faults": [fault._asdict() for fault in self.faults],
            "servers": [asdict(server) | {"state": server.state} for server in self.servers],
        }

    def as_lines(self) -> list[str]:
        """Return the lines about each server, the worst first, and the summary."""
        states = list(_EXIT_CODES)
        servers = sorted(self.servers, key=lambda server: states.index(server.state))
        lines = [line for server in servers for line in _paragraph(server)]
        lines += [f"unreadable {fault}" for fault in self.faults]
        why = "" if self.is_over else ": the hour is not over"
        return [
            *lines,
            f"{self.state}  {self.target}  {self.events:,} events in {self.objects:,} objects{why}",
        ]


def _paragraph(server: ServerHour) -> list[str]:
    marker, count = server.marker, sum(map(total_ids, server.stored.values()))
    of = f" of {marker.instance}" if marker.instance else ""
    told = _MEANING[marker.state if marker.time else ""]
    lines = [f"server {marker.server}{of}: {told}, {count:,} events stored"]
    if marker.state == CLOSED:
        lines[0] += f", revision {marker.revision}"
    if server.given_up is not None:
        when = datetime.fromtimestamp(server.given_up, UTC)
        lines.append(f"  given up at {when:%Y-%m-%dT%H:%M:%SZ}: nothing of it is waited for")
    for stream, spans in server.missing.items():
        fates = [fate for fate, found in marker.elsewhere.items() if stream in found]
        why = f" ({', '.join(fates)})" if fates else ""
        lines.append(f"  missing {total_ids(spans):,} ids of {stream}{why}: {ranges(spans)}")
    if marker.state != CLOSED:
        for stream in sorted(marker.streams.keys() | server.stored.keys()):
            spans = server.stored.get(stream, [])
            last = spans[-1].last if spans else 0
            lines.append(f"  of stream {stream} nothing is known after id {last}")
    return lines


def give_up(target: Target, server: str) -> tuple[str, bytes]:
    """Return what says from now on that a server is given up: an object's key and bytes."""
    body = json.dumps({"server": server, "given_up": round(time.time(), 3)}).encode()
    return f"{target.closed}{server}{_GIVEN_UP}", body + b"\n"


def read_markers(target: Target, reader: Reader, zone: str) -> HourReport:
    """Return what the markers alone tell of the hour ``target``. Raises StoreError.

    ``zone`` is that of the hour's name, if no server tells.
    """
    keys = reader.keys(target.closed)
    servers = {name: _unknown(target, name, zone) for name in sorted(map(_server_of, keys))}
    unreadable: dict[str, Fault] = {}
    for found in reader.read(keys, _read):
        if isinstance(found, Fault):
            unreadable[_server_of(found.place)] = found
        elif isinstance(found, Marker):
            servers[found.server].marker = found
        else:
            servers[found.server].given_up = found.time
    then = time.time() - _SETTLED_SECONDS
    zones = {server.marker.tz for server in servers.values()} or {zone}
    is_over = all(ids.partition(then, ZoneInfo(name)) > _partition(target) for name in zones)
    faults = [fault for name, fault in unreadable.items() if servers[name].given_up is None]
    return HourReport(target, is_over, list(servers.values()), faults)


def read_hour(target: Target, reader: Reader, zone: str) -> HourReport:
    """Return what markers and objects tell; the markers are read first. Raises StoreError."""
    report = read_markers(target, reader, zone)
    owners = {name: server for server in report.servers for name in server.marker.streams}
    keys = [key for key in reader.keys(target.keys) if stored.is_object(key)]
    for content in reader.contents(keys):
        report.objects += 1
        report.events += content.events
        report.faults += content.faults + content.differs
        for name, spans in content.spans.items():
            if name not in owners:
                owners[name] = _owner(report, name, stored.instance_of(content.place), zone)
            found = owners[name].stored
            found[name] = union([*found.get(name, []), *spans])
    met = {name: spans for server in report.servers for name, spans in server.stored.items()}
    for server in report.servers:
        server.compare(met)
    return report


def _owner(report: HourReport, stream: str, instance: str, zone: str) -> ServerHour:
    """Return the server of a stream that no marker names."""
    for server in report.servers:
        is_open = server.marker.state != CLOSED
        if server.marker.server == stream or (is_open and server.marker.instance == instance):
            return server
    report.servers.append(_unknown(report.target, stream, zone, instance))
    return report.servers[-1]


def _unknown(target: Target, name: str, zone: str, instance: str = "") -> ServerHour:
    return ServerHour(Marker(name, _partition(target), zone, instance))


def _server_of(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(_GIVEN_UP).removesuffix(_JSON)


def _partition(target: Target) -> str:
    return target.part.rstrip("/")


def _read(key: str, body: bytes) -> Marker | _GivenUp:
    """Read a marker, or who was given up and when. Raises ValueError."""
    *_, day, hour, name = key.split("/")
    if name.endswith(_GIVEN_UP):
        said = json_text.parse(body)
        if not isinstance(said, dict) or type(said.get("given_up")) not in (int, float):
            raise ValueError("it does not tell when a server was given up")
        return _GivenUp(_server_of(key), float(said["given_up"]))
    marker = closed_hour.unpack(body)
    try:
        ZoneInfo(marker.tz)
    except (ZoneInfoNotFoundError, OSError) as exc:
        raise ValueError("its time zone is none") from exc
    if (marker.server + _JSON, marker.partition) != (name, f"{day}/{hour}"):
        raise ValueError("the marker of another server or hour")
    return marker
