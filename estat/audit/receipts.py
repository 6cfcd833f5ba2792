"""What became of the events whose ids an answer named: ``estat audit --receipt``.

A stream's name tells when it began, and its objects' keys contain the name and follow each other
in time. So it is enough to list a few hours to find the one that holds an id, and to read a few
objects of that hour. This fails if the clock was set, or if the stream was idle for hours. Then
keys are listed from there on, and from the beginning, up to a bound.
"""

import sys
import time
from bisect import bisect_left
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from estat.audit import stored
from estat.audit.dlq import Disk
from estat.audit.reader import Reader
from estat.audit.stored import Fault, Record
from estat.audit.target import Target
from estat.events import ids
from estat.events.spans import Span, Stored, intersect, subtract, total_ids, union

_HOUR_SECONDS = 3600

#: Keys that are listed at most of a stream that is not found otherwise: 100 requests.
MOST_KEYS = 100_000

STORED, ON_DISK, UNKNOWN = "stored", "on disk", "unknown"


class Found(NamedTuple):
    """What became of consecutive ids, and in which object or file they are, or why in none."""

    state: str
    first: int
    last: int
    where: str


class Receipt(NamedTuple):
    """Consecutive ids of one stream, and what became of them: in several places, if they are."""

    stream: str
    span: Span
    found: tuple[Found, ...] = ()


def receipt(text: str) -> Receipt:
    """Read ``ID``, ``ID..ID`` or ``ID..NUMBER``. Raises ValueError that says what is wrong."""
    first, several, last = text.strip().partition("..")
    begin, end = ids.event_id(first), ids.event_id(last if several else first)
    if begin and last.isdecimal():
        end = ids.event_id(f"{begin.stream}-{last}")
    if not (begin and end):
        raise ValueError("an event's id is 28 hexadecimal digits, a hyphen and a number")
    if begin.stream != end.stream:
        raise ValueError("its two ids are of different streams")
    if begin.number > end.number:
        raise ValueError("its second id comes before the first")
    return Receipt(begin.stream, Span(begin.number, end.number))


@dataclass(frozen=True, slots=True)
class Receipts:
    """What became of all that was asked for."""

    target: Target
    paths: list[str]  # the DLQ directories that were looked at
    receipts: list[Receipt]
    faults: list[Fault]

    @property
    def exit_code(self) -> int:
        """The command's exit status: 1 if ids are unknown, 3 if some are on disk only, else 0."""
        states = {found.state for receipt in self.receipts for found in receipt.found}
        return 1 if UNKNOWN in states else 3 if ON_DISK in states else 0

    def as_json(self) -> dict[str, Any]:
        """Return everything, as ``--json`` prints it."""
        return {
            "target": str(self.target),
            "dlq": self.paths,
            "exit_code": self.exit_code,
            "receipts": [
                {"stream": stream, **span._asdict(), "found": [one._asdict() for one in found]}
                for stream, span, found in self.receipts
            ],
            "unreadable": [fault._asdict() for fault in self.faults],
        }

    def as_lines(self) -> list[str]:
        """Return a line for each place that holds ids of a receipt, and for those in none."""
        lines = [
            f"{state:<8} {stream}-{first}{f'..{last}' * (last > first)}  {where}"
            for stream, _, found in self.receipts
            for state, first, last, where in found
        ]
        lines += [f"unreadable {fault.place}: {fault.reason}" for fault in self.faults]
        disk = ", ".join(self.paths) or "no disk: there is no DLQ directory here"
        return [*lines, f"looked at {self.target} and {disk}"]


def look_up(
    asked: list[Receipt],
    target: Target,
    reader: Reader,
    paths: list[str],
    zone: ZoneInfo,
    *,
    deep: bool,
) -> Receipts:
    """Look for ids on disk and then in the store, the way that events move.

    Raises TargetError, DiskError and StoreError.
    """
    streams = {one.stream for one in asked}
    disk = Disk(paths, target._replace(part=""), deep, streams)
    disk.look(lambda _: None)
    objects = {stream: _Objects(stream, target, reader, zone, deep=deep) for stream in streams}
    receipts = []
    for stream, span, _ in asked:
        found = [Found(STORED, *one) for one in objects[stream].holding(span)]
        lacking = _lacking(span, found)
        for file in disk.found:
            if file.stream == stream:
                found += [Found(ON_DISK, *n, file.path) for n in intersect(file.spans, lacking)]
        for unknown in _lacking(span, found):
            why = objects[stream].why_not(unknown.first)
            found.append(Found(UNKNOWN, *unknown, why))
        found.sort(key=attrgetter("first"))  # an object's rest, -r1, is read before it
        receipts.append(Receipt(stream, span, tuple(found)))
    faults = [fault for one in objects.values() for fault in one.faults]
    return Receipts(target, paths, receipts, disk.faults + faults)


def _lacking(span: Span, found: list[Found]) -> list[Span]:
    return subtract([span], union(Span(one.first, one.last) for one in found))


class _Objects:
    """The objects of one stream, which are listed and read as they are needed."""

    def __init__(
        self, stream: str, target: Target, reader: Reader, zone: ZoneInfo, *, deep: bool
    ) -> None:
        self.faults: list[Fault] = []
        self._stream = stream
        self._target = target
        self._reader = reader
        self._zone = zone
        self._deep = deep
        self._began = int(ids.started_at(stream) or 0)
        # from its beginning, in hours of no zone; one more, for the one that has begun since
        self._hours = range(int(time.time() - self._began) // _HOUR_SECONDS + 2)
        self._in_hours: dict[str, list[str]] = {}  # the stream's keys
        self._read: dict[str, list[Stored]] = {}  # what objects hold
        self._everywhere: list[str] | None = None
        self._cut = False

    def holding(self, span: Span) -> list[Stored]:
        """Return which ids of a span are in which objects."""
        begin = ""
        if self._hours and not self._target.is_partial:
            first, last = (bisect_left(self._hours, n, key=self._last_in_hour) for n in span)
            hours = self._hours[first : last + 1]
            found = self._among([key for hour in hours for key in self._in_hour(hour)], span)
            if total_ids(union(found)) == span.ids:
                return found
            begin = self._key_of(self._hours[max(0, first - 1)])
        return self._among(self._all(begin), span)

    def why_not(self, number: int) -> str:
        """Return what may have become of an id that is neither stored nor on disk."""
        record = ids.record_key(self._target.raw_prefix, self._stream)
        for found in self._reader.read(self._reader.keys(record, most=1), stored.record):
            if isinstance(found, Record) and number > found.last:
                return f"never given: its stream has ended with {found.last}"
        if self._cut:
            return f"not among {MOST_KEYS:,} keys; name a part of the prefix, {self._target}dt=…"
        return (
            "on another server's disk, handed over to FALLBACK_BUCKET, dropped by policy, "
            "deleted since, or never given"
        )

    def _among(self, keys: list[str], span: Span) -> list[Stored]:
        """Return what objects hold of a span; they hold a stream's ids in the order of batches."""
        batches = [list(found) for _, found in groupby(sorted(keys, key=_batch), key=_batch)]
        held = []
        for batch in batches[bisect_left(batches, span.first, key=self._last_in) :]:
            there = self._held_by(batch)
            if there and min(there).first > span.last:
                break
            held += [
                Stored(first, last, one.key)
                for one in there
                for first, last in intersect([span], [Span(one.first, one.last)])
            ]
        return held

    def _last_in_hour(self, hour: int) -> int:
        keys = self._in_hour(hour)
        if not keys:
            return sys.maxsize  # before its end an hour without any is rare
        newest = max(map(_batch, keys))
        return self._last_in([key for key in keys if _batch(key) == newest])

    def _last_in(self, batch: list[str]) -> int:
        return max((one.last for one in self._held_by(batch)), default=0)

    def _held_by(self, batch: list[str]) -> list[Stored]:
        unread = [key for key in batch if key not in self._read]
        for content in self._reader.contents(unread, deep=self._deep):
            self.faults += content.faults + content.differs
            spans = content.spans.get(self._stream, [])
            self._read[content.place] = [Stored(*span, content.place) for span in spans]
        return [one for key in batch for one in self._read[key]]

    def _in_hour(self, hour: int) -> list[str]:
        key = self._key_of(hour)
        if key not in self._in_hours:
            self._in_hours[key] = self._of_stream(self._reader.keys(key))
        return self._in_hours[key]

    def _key_of(self, hour: int) -> str:
        partition = ids.partition(self._began + hour * _HOUR_SECONDS, self._zone)
        return f"{self._target.raw_prefix}/{partition}/"

    def _all(self, begin: str) -> list[str]:
        """List the stream's keys behind ``begin``, then those before, up to the bound."""
        if self._everywhere is None or self._cut:
            keys = self._reader.keys(self._target.keys, after=begin, most=MOST_KEYS)
            rest = MOST_KEYS - len(keys)
            keys += self._reader.keys(self._target.keys, before=begin, most=rest)
            self._cut = len(keys) == MOST_KEYS
            self._everywhere = self._of_stream(keys)
        return self._everywhere

    def _of_stream(self, keys: list[str]) -> list[str]:
        return [
            key for key in keys if stored.is_object(key) and stored.stream_of(key) == self._stream
        ]


def _batch(key: str) -> int:
    """Return the number of the batch that an object holds, or a part of it."""
    return int(key.rpartition("_")[2].removesuffix(ids.SUFFIX).partition("-")[0])
