"""What ``estat audit`` says: for people, long lists cut, or all of it as JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from estat.audit import verdict as audit
from estat.audit.dlq import Disk
from estat.audit.stored import Content, Fault
from estat.audit.target import Target
from estat.audit.verdict import Verdict
from estat.events.spans import Repeat, Span, total_ids

#: What is shown of a list, at most; the rest is counted.
_STREAMS, _SPANS, _KEYS, _FAULTS = 50, 10, 4, 20


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
    bad_objects: int = 0
    verdicts: list[Verdict] = field(default_factory=list)

    def count(self, content: Content) -> None:
        """Count an object that was read."""
        self.objects += 1
        self.objects_read += content.was_read
        self.lines += content.events
        self.bad_lines += content.bad_lines
        self.bad_objects += any(fault.line is None for fault in content.faults)
        self.faults += content.faults
        self.differs += content.differs

    def add_faults(self, faults: list[Fault]) -> None:
        """Count what else can't be read: files on disk and records."""
        self.faults += faults
        self.bad_lines += sum(fault.line is not None for fault in faults)
        self.bad_objects += sum(fault.line is None for fault in faults)

    @property
    def exit_code(self) -> int:
        """The command's exit status: 0, 1 or 3."""
        return audit.exit_code(self.verdicts, bool(self.faults or self.differs))

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to judge."""
        return not (self.verdicts or self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return everything, as ``--json`` prints it; spans are pairs of first and last id."""
        return {
            "target": str(self.target),
            "partial": self.target.is_partial,
            "deep": self.deep,
            "exit_code": self.exit_code,
            **self._totals(),
            "states": self._by_state(),
            "streams": [_stream(verdict) for verdict in self.verdicts],
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
            lines += ["unreadable", *_cut(map(_fault, self.faults), len(self.faults), _FAULTS)]
        if self.differs:
            shown = _cut(map(_fault, self.differs), len(self.differs), _FAULTS)
            lines += ["not as their metadata says", *shown]
        if lines:
            lines.append("")
        totals = self._totals()
        by_state = ", ".join(f"{n:,} {state}" for state, n in self._by_state().items())
        unreadable = self.bad_lines + self.bad_objects
        scope = "a part of its prefix" if self.target.is_partial else "all of its prefix"
        lines += [
            f"audited     {self.target} ({scope})",
            f"objects     {self.objects:>10,}  {self.objects_read:,} read line by line",
            f"events      {totals['events']:>10,}",
            f"streams     {len(self.verdicts):>10,}  {by_state}",
            f"missing     {totals['missing_events']:>10,}",
            f"repeated    {totals['repeated_events']:>10,}",
            f"unreadable  {unreadable:>10,}  {self.bad_lines:,} lines, {self.bad_objects:,} files",
        ]
        return [*lines, *self._notes(totals["waiting_events"])]

    def _notes(self, waiting: int) -> list[str]:
        lines = []
        disk = self.disk
        if disk:
            left_out = f", {disk.left_out:,} for other ranges" if disk.left_out else ""
            where = f"{disk.files:,} files, {disk.journals:,} journals"
            lines.append(f"on disk     {waiting:>10,}  in {where}{left_out}")
        if self.other_objects:
            count = len(self.other_objects)
            lines.append(f"note: {count:,} objects are none of the server's, as")
            lines += _cut(self.other_objects, count, _KEYS)
        return lines

    def _totals(self) -> dict[str, int]:
        def total(name: str) -> int:
            return sum(getattr(verdict, name) for verdict in self.verdicts)

        return {
            "objects": self.objects,
            "objects_read": self.objects_read,
            "lines": self.lines,
            "events": total("events"),
            "missing_events": sum(total_ids(verdict.missing) for verdict in self.verdicts),
            "waiting_events": sum(total_ids(verdict.waiting) for verdict in self.verdicts),
            "repeated_events": total("repeated_events"),
            "replaying_events": total("replaying_events"),
            "quarantined_events": total("quarantined_events"),
            "unreadable_lines": self.bad_lines,
            "unreadable_objects": self.bad_objects,
        }

    def _by_state(self) -> dict[str, int]:
        """Count streams by state; one in two states counts in both."""
        counted = Counter(state for verdict in self.verdicts for state in verdict.states)
        return {state: counted[state] for state in audit.STATES if counted[state]}


def _stream(verdict: Verdict) -> dict[str, Any]:
    return asdict(verdict) | {
        "missing_events": total_ids(verdict.missing),
        "waiting_events": total_ids(verdict.waiting),
        "repeats": [repeat._asdict() for repeat in verdict.repeats],
    }


def _paragraph(verdict: Verdict) -> list[str]:
    instance = f" of {verdict.instance}" if verdict.instance else ""
    lines = [f"stream {verdict.stream}{instance}: {', '.join(verdict.states)}"]
    end = f", its record says {verdict.record:,}" if verdict.record is not None else ""
    if verdict.first is None:
        lines.append(f"  stored    nothing{end}")
    else:
        lines.append(
            f"  stored    {verdict.events:,} events, ids {verdict.first} to {verdict.last}{end}"
        )
    for name, spans in (
        ("missing", verdict.missing),
        ("on disk", verdict.waiting),
        ("too many", verdict.past_record),
    ):
        if spans:
            lines.append(f"  {name:<9} {_spans(spans)}")
    if verdict.repeats:
        lines.append(f"  repeated  {verdict.repeated_events:,} ids")
        lines += _cut(map(_repeat, verdict.repeats), len(verdict.repeats), _SPANS)
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


def _spans(spans: Sequence[Span]) -> str:
    shown = ", ".join(_ids(span) for span in spans[:_SPANS])
    more = f", … and {len(spans) - _SPANS:,} more ranges" if len(spans) > _SPANS else ""
    return f"{total_ids(spans):,} ids: {shown}{more}"


def _ids(span: Span | Repeat) -> str:
    return str(span.first) if span.first == span.last else f"{span.first}-{span.last}"


def _repeat(repeat: Repeat) -> str:
    keys = ", ".join(repeat.keys[:_KEYS])
    more = f", … and {len(repeat.keys) - _KEYS:,} more" if len(repeat.keys) > _KEYS else ""
    return f"{_ids(repeat)} in {keys}{more}"


def _fault(fault: Fault) -> str:
    line = f" line {fault.line}" if fault.line is not None else ""
    return f"{fault.place}{line}: {fault.reason}"


def _cut(items: Iterable[str], count: int, limit: int) -> list[str]:
    lines = [f"    {item}" for item, _ in zip(items, range(limit), strict=False)]
    return [*lines, f"    … and {count - limit:,} more"] if count > limit else lines
