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
from functools import cache
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


class Batch(NamedTuple):
    """A batch of a stream, and the keys of its objects: one, unless its rest went up beside it."""

    number: int
    keys: tuple[str, ...]


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
        lines += [f"unreadable {fault}" for fault in self.faults]
        disk = ", ".join(self.paths) or "no disk: there is no DLQ directory here"
        return [*lines, f"looked at {self.target} and {disk}"]


def look_up(
    asked: list[Receipt], target: Target, reader: Reader, paths: list[str], zone: ZoneInfo
) -> Receipts:
    """Look for ids on disk and then in the store, the way that events move.

    Raises TargetError, DiskError and StoreError.
    """
    streams = {one.stream for one in asked}
    disk = Disk(paths, target._replace(part=""), reader, streams)
    disk.look()
    objects = {stream: _Objects(stream, target, reader, zone) for stream in streams}
    receipts = []
    for stream, span, _ in asked:
        found = [Found(STORED, *one) for one in objects[stream].holding(span)]
        lacking = _lacking(span, found)
        for file in disk.found:
            spans = intersect(file.spans.get(stream, []), lacking)
            found += [Found(ON_DISK, *one, file.place) for one in spans]
        for unknown in _lacking(span, found):
            why = objects[stream].why_not(unknown.first)
            found.append(Found(UNKNOWN, *unknown, why))
        found.sort(key=attrgetter("first"))  # an object's rest, -r1, is read before it
        receipts.append(Receipt(stream, span, tuple(found)))
    faults = [fault for file in disk.found for fault in file.faults]
    faults += [fault for one in objects.values() for fault in one.faults]
    return Receipts(target, paths, receipts, faults)


def _lacking(span: Span, found: list[Found]) -> list[Span]:
    return subtract([span], union(Span(one.first, one.last) for one in found))


class _Objects:
    """The objects of one stream, which are listed and read as they are needed."""

    def __init__(self, stream: str, target: Target, reader: Reader, zone: ZoneInfo) -> None:
        self.faults: list[Fault] = []
        self._stream = stream
        self._target = target
        self._reader = reader
        self._zone = zone
        self._began = int(ids.started_at(stream) or 0)
        # from its beginning, in hours of no zone; one more, for the one that has begun since
        self._hours = range(int(time.time() - self._began) // _HOUR_SECONDS + 2)
        # nothing is listed or read twice
        self._in_hour = cache(self._list_hour)
        self._held_by = cache(self._read)
        self._everywhere: list[Batch] | None = None
        self._cut = False

    def holding(self, span: Span) -> list[Stored]:
        """Return which ids of a span are in which objects."""
        begin = ""
        if self._hours and not self._target.is_partial:
            first, last = (bisect_left(self._hours, n, key=self._last_in_hour) for n in span)
            hours = self._hours[first : last + 1]
            found = self._among([one for hour in hours for one in self._in_hour(hour)], span)
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

    def _among(self, batches: list[Batch], span: Span) -> list[Stored]:
        """Return what batches hold of a span; their ids are in the order of their numbers."""
        batches = sorted(set(batches))
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
        batches = self._in_hour(hour)
        # before its end an hour without any is rare
        return self._last_in(batches[-1]) if batches else sys.maxsize

    def _last_in(self, batch: Batch) -> int:
        return max((one.last for one in self._held_by(batch)), default=0)

    def _read(self, batch: Batch) -> list[Stored]:
        held = []
        for content in self._reader.contents(batch.keys):
            self.faults += content.faults + content.differs
            held += content.stored(self._stream)
        return held

    def _list_hour(self, hour: int) -> list[Batch]:
        return self._batches(self._reader.keys(self._key_of(hour)))

    def _key_of(self, hour: int) -> str:
        partition = ids.partition(self._began + hour * _HOUR_SECONDS, self._zone)
        return f"{self._target.raw_prefix}/{partition}/"

    def _all(self, begin: str) -> list[Batch]:
        """List the stream's keys behind ``begin``, then those before, up to the bound."""
        if self._everywhere is None or self._cut:
            keys = self._reader.keys(self._target.keys, after=begin, most=MOST_KEYS)
            rest = MOST_KEYS - len(keys)
            keys += self._reader.keys(self._target.keys, before=begin, most=rest)
            self._cut = len(keys) == MOST_KEYS
            self._everywhere = self._batches(keys)
        return self._everywhere

    def _batches(self, keys: list[str]) -> list[Batch]:
        """Return the stream's batches among the objects with these keys, in order."""
        ours = [k for k in keys if stored.is_object(k) and stored.stream_of(k) == self._stream]
        numbered = groupby(sorted(ours, key=_batch_number), key=_batch_number)
        return [Batch(number, tuple(found)) for number, found in numbered]


def _batch_number(key: str) -> int:
    """Return the number of the batch that an object holds, or a part of it."""
    return int(key.rpartition("_")[2].removesuffix(ids.SUFFIX).partition("-")[0])
