"""The rule of the audit: from the ids that were found to what became of each stream.

A stream's ids are 1, 2, 3 … n, and its record says n. So ids alone prove that
nothing was lost or doubled: a missing number is a gap, a number in two places a
repeat. A rule without clock or I/O; ``auditor`` reads.

    complete       a record, and every id up to its last one is stored once
    gaps           ids are neither stored nor on the disk that was looked at
    repeats        ids are stored more than once
    past record    ids are stored that the record says were never given
    waiting        ids, or the record, are on disk (DLQ or journal) and not stored yet
    cut off        the stream goes on outside of the audited range
    open           no record: the stream runs, or its process was killed

Of an open stream the last id is not known, so what is missing behind the last
one found can't be told.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from estat.events.spans import Repeat, Span, Stored, intersect, subtract, total_ids, union

COMPLETE = "complete"
GAPS, REPEATS, PAST_RECORD = "gaps", "repeats", "past record"
WAITING, CUT_OFF, OPEN = "waiting", "cut off", "open"

#: Every state, the worst first.
STATES = (GAPS, REPEATS, PAST_RECORD, WAITING, CUT_OFF, OPEN, COMPLETE)
_FAULTS = frozenset({GAPS, REPEATS, PAST_RECORD})


@dataclass(slots=True)
class Evidence:
    """All that was found of one stream."""

    stored: list[Stored] = field(default_factory=list)
    on_disk: list[Span] = field(default_factory=list)
    #: The last id, as the stream's record says; None without a record.
    record: int | None = None
    record_on_disk: bool = False  # the record waits in the DLQ
    instance: str = ""
    quarantined_events: int = 0  # in unreadable files and ranges on disk


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one stream; ``states`` has one state at least, the worst first."""

    stream: str
    instance: str
    states: tuple[str, ...]
    events: int  # different ids that are stored
    first: int | None  # stored; None if there is nothing
    last: int | None
    record: int | None
    missing: tuple[Span, ...]
    missing_events: int
    waiting: tuple[Span, ...]
    waiting_events: int
    repeats: tuple[Repeat, ...]
    repeated_events: int
    past_record: tuple[Span, ...]
    #: Ids both stored and on disk, from where they are about to go: no repeats.
    replaying_events: int
    quarantined_events: int


def judge(stream: str, found: Evidence, *, partial: bool) -> Verdict:
    """Judge one stream. ``partial``: the range may hold only a part of any stream."""
    there, disk = union(found.stored), union(found.on_disk)
    known = union([*there, *disk])
    # of a part: where the ids that were found begin and end, and nothing is said of the rest
    first = known[0].first if partial and known else 1
    last = known[-1].last if known else 0
    if found.record is not None and not partial:
        last = found.record
    lacking = subtract([Span(first, last)] if last else [], there)
    missing = subtract(lacking, disk)
    repeats = list(_repeats(found.stored))
    waiting = intersect(disk, lacking)
    past = [] if found.record is None else subtract(known, [Span(1, found.record)])
    states = {
        GAPS: bool(missing),
        REPEATS: bool(repeats),
        PAST_RECORD: bool(past),
        WAITING: bool(waiting) or found.record_on_disk,
        CUT_OFF: partial and _is_cut_off(known, found.record),
        OPEN: found.record is None,
    }
    return Verdict(
        stream=stream,
        instance=found.instance,
        states=tuple(state for state, is_so in states.items() if is_so) or (COMPLETE,),
        events=total_ids(there),
        first=there[0].first if there else None,
        last=there[-1].last if there else None,
        record=found.record,
        missing=tuple(missing),
        missing_events=total_ids(missing),
        waiting=tuple(waiting),
        waiting_events=total_ids(waiting),
        repeats=tuple(repeats),
        repeated_events=total_ids(union(repeats)),
        past_record=tuple(past),
        replaying_events=total_ids(intersect(disk, there)),
        quarantined_events=found.quarantined_events,
    )


def exit_code(verdicts: Iterable[Verdict], faulty: bool) -> int:
    """Return 0 if all is complete, 1 if anything is wrong, 3 if something is only unfinished.

    ``faulty`` says that something is not readable, or not as described.
    """
    states = {state for verdict in verdicts for state in verdict.states}
    if faulty or states & _FAULTS:
        return 1
    return 3 if states - {COMPLETE} else 0


def _is_cut_off(known: list[Span], record: int | None) -> bool:
    """Tell whether ids outside of those that were found exist for certain."""
    if not known:
        return record is not None
    return known[0].first > 1 or (record is not None and known[-1].last < record)


def _repeats(stored: list[Stored]) -> Iterator[Repeat]:
    """Sweep over the ids in order, and yield where more than one object has them."""
    active: list[Stored] = []
    position = 0
    for span in [*sorted(stored), None]:
        # up to the next span's beginning only those that began before can hold an id
        while active and (span is None or position < span.first):
            end = min(one.last for one in active)
            if span is not None:
                end = min(end, span.first - 1)
            if len(active) > 1:
                yield Repeat(position, end, tuple(sorted(one.key for one in active)))
            position = end + 1
            active = [one for one in active if one.last > end]
        if span is not None:
            active.append(span)
            position = span.first
