"""What ``estat audit`` says: for people, long lists cut, or all of it as JSON."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from estat.audit import verdict as audit
from estat.audit.dlq import Disk
from estat.audit.stored import Content, Fault
from estat.audit.target import Target
from estat.audit.verdict import Verdict
from estat.events.spans import Repeat, Span, total_ids

T = TypeVar("T")

#: What is shown of a list, at most; the rest is counted.
_STREAMS, _SPANS, _KEYS, _FAULTS = 50, 10, 4, 20

#: What is added up of all streams.
_TOTALS = "events missing_events waiting_events repeated_events replaying_events quarantined_events"


@dataclass(slots=True)
class Report:
    """The outcome of one audit."""

    target: Target
    deep: bool
    disk: Disk | None
    objects: int = 0
    objects_read: int = 0  # not told by their metadata alone
    lines: int = 0  # events in all objects, repeats included
    other_objects: list[str] = field(default_factory=list)  # not named as a batch
    faults: list[Fault] = field(default_factory=list)
    differs: list[Fault] = field(default_factory=list)  # objects that are not as described
    bad_lines: int = 0
    verdicts: list[Verdict] = field(default_factory=list)

    def add_object(self, content: Content) -> None:
        """Count an object that was read."""
        self.objects += 1
        self.objects_read += content.was_read
        self.lines += content.events
        self.differs += content.differs
        self.add_faults(content.faults, content.bad_lines)

    def add_faults(self, faults: list[Fault], bad_lines: int = 0) -> None:
        """Count what can't be read: objects, files on disk and records, and lines in them."""
        self.faults += faults
        self.bad_lines += bad_lines

    @property
    def exit_code(self) -> int:
        """The command's exit status: 0, 1 or 3."""
        return audit.exit_code(self.verdicts, bool(self.faults or self.differs))

    def as_json(self) -> dict[str, Any]:
        """Return everything, as ``--json`` prints it; spans are pairs of first and last id."""
        return {
            "target": str(self.target),
            "partial": self.target.is_partial,
            "deep": self.deep,
            "exit_code": self.exit_code,
            "objects": self.objects,
            "objects_read": self.objects_read,
            "lines": self.lines,
            **self._totals(),
            "unreadable_lines": self.bad_lines,
            "unreadable_objects": self._bad_objects(),
            "states": self._by_state(),
            "streams": [
                asdict(verdict) | {"repeats": [repeat._asdict() for repeat in verdict.repeats]}
                for verdict in self.verdicts
            ],
            "unreadable": [fault._asdict() for fault in self.faults],
            "differing": [fault._asdict() for fault in self.differs],
            "other_objects": self.other_objects,
            "dlq": self.disk
            and {
                "paths": self.disk.paths,
                "files": self.disk.files,
                "journals": self.disk.journals,
                "left_out_files": self.disk.left_out,
            },
        }

    def as_lines(self) -> list[str]:
        """Return a paragraph for each stream that is not complete, and the summary."""
        told = [verdict for verdict in self.verdicts if verdict.states != (audit.COMPLETE,)]
        # the worst first, so that the cut leaves out the harmless
        told.sort(key=lambda verdict: [audit.STATES.index(state) for state in verdict.states])
        lines = [line for verdict in told[:_STREAMS] for line in _paragraph(verdict)]
        if len(told) > _STREAMS:
            lines.append(f"… and {len(told) - _STREAMS:,} more streams that are not complete")
        if self.faults:
            lines += ["unreadable", *_cut(self.faults, _FAULTS)]
        if self.differs:
            lines += ["not as their metadata says", *_cut(self.differs, _FAULTS)]
        if lines:
            lines.append("")
        return lines + self._summary()

    def _summary(self) -> list[str]:
        totals = self._totals()
        by_state = ", ".join(f"{n:,} {state}" for state, n in self._by_state().items())
        bad = self._bad_objects()
        rows = [
            ("objects", self.objects, f"{self.objects_read:,} read line by line"),
            ("events", totals["events"], ""),
            ("streams", len(self.verdicts), by_state),
            ("missing", totals["missing_events"], ""),
            ("repeated", totals["repeated_events"], ""),
            ("unreadable", self.bad_lines + bad, f"{self.bad_lines:,} lines, {bad:,} files"),
        ]
        disk = self.disk
        if disk:
            where = f"in {disk.files:,} files, {disk.journals:,} journals"
            left_out = f", {disk.left_out:,} for other ranges" if disk.left_out else ""
            rows.append(("on disk", totals["waiting_events"], where + left_out))
        scope = "a part of its prefix" if self.target.is_partial else "all of its prefix"
        lines = [f"audited     {self.target} ({scope})"]
        lines += [f"{name:<12}{count:>10,}  {note}".rstrip() for name, count, note in rows]
        if self.other_objects:
            lines.append(f"note: {len(self.other_objects):,} objects are none of the server's, as")
            lines += _cut(self.other_objects, _KEYS)
        return lines

    def _totals(self) -> dict[str, int]:
        return {name: sum(getattr(one, name) for one in self.verdicts) for name in _TOTALS.split()}

    def _bad_objects(self) -> int:
        return sum(fault.line is None for fault in self.faults)

    def _by_state(self) -> dict[str, int]:
        """Count streams by state; one in two states counts in both."""
        counted = Counter(state for verdict in self.verdicts for state in verdict.states)
        return {state: counted[state] for state in audit.STATES if counted[state]}


def _paragraph(verdict: Verdict) -> list[str]:
    instance = f" of {verdict.instance}" if verdict.instance else ""
    stored = "nothing"
    if verdict.events:
        stored = f"{verdict.events:,} events, ids {verdict.first} to {verdict.last}"
    if verdict.record is not None:
        stored += f", its record says {verdict.record:,}"
    lines = [
        f"stream {verdict.stream}{instance}: {', '.join(verdict.states)}",
        f"  stored    {stored}",
    ]
    spans_by_name = {
        "missing": verdict.missing,
        "on disk": verdict.waiting,
        "too many": verdict.past_record,
    }
    for name, spans in spans_by_name.items():
        if spans:
            lines.append(f"  {name:<9} {total_ids(spans):,} ids: {ranges(spans)}")
    if verdict.repeats:
        lines.append(f"  repeated  {verdict.repeated_events:,} ids")
        lines += _cut(verdict.repeats, _SPANS, _repeat)
    if verdict.replaying_events:
        lines.append(
            f"  note: {verdict.replaying_events:,} ids are stored and on disk, "
            "where they have not been removed yet"
        )
    if audit.OPEN in verdict.states:
        lines.append("  note: its worker still runs, or was killed")
    if verdict.quarantined_events:
        lines.append(f"  note: {verdict.quarantined_events:,} events are unreadable on disk")
    return lines


def ranges(spans: Sequence[Span]) -> str:
    """Return the first of some spans as text, and how many more there are."""
    shown = ", ".join(map(_ids, spans[:_SPANS]))
    return shown + (f", … and {len(spans) - _SPANS:,} more ranges" if len(spans) > _SPANS else "")


def _ids(span: Span | Repeat) -> str:
    return str(span.first) if span.first == span.last else f"{span.first}-{span.last}"


def _repeat(repeat: Repeat) -> str:
    keys = ", ".join(repeat.keys[:_KEYS])
    more = f", … and {len(repeat.keys) - _KEYS:,} more" if len(repeat.keys) > _KEYS else ""
    return f"{_ids(repeat)} in {keys}{more}"


def _cut(items: Sequence[T], limit: int, shown: Callable[[T], str] = str) -> list[str]:
    lines = [f"    {shown(item)}" for item in items[:limit]]
    return [*lines, f"    … and {len(items) - limit:,} more"] if len(items) > limit else lines
