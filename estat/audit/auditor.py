"""The order of an audit: what is read when, and what it proves of each stream.

While it reads, a server accepts and moves events: from the journal to the DLQ to the store,
or from the journal to the store; the record of a stream comes last. What moves must not fall
between two looks. So the disk is read first, in that order, then the records are listed, then
the objects.

A server may also store a later event before an earlier one. So of events that were accepted
after their stream's journal was read some are met and others are not. An id that was met proves
that all lower ids had been given by then, and were in a journal, the DLQ or the store. So a
second look in the same order, begun after the first has ended, finds them. It looks only for
the gaps of the first look. Ids that were given later are not audited, or there would be no end.
"""

from collections import defaultdict
from collections.abc import Iterable

from estat.audit import stored, verdict
from estat.audit.dlq import Disk
from estat.audit.reader import Reader
from estat.audit.report import Report
from estat.audit.stored import Fault, Record
from estat.audit.target import Target, TargetError
from estat.audit.verdict import Evidence, Verdict
from estat.events.spans import Span, Stored, intersect

Spans = dict[str, list[Span]]


class Auditor:
    """One audit of a target, and of the DLQ directories ``paths``."""

    def __init__(self, target: Target, reader: Reader, paths: list[str]) -> None:
        self._target = target
        self._reader = reader
        self._paths = paths
        self._report = Report(target, reader.deep, None)
        self._evidence: dict[str, Evidence] = defaultdict(Evidence)

    def audit(self) -> Report:
        """Read everything and judge each stream. Raises TargetError, DiskError and StoreError."""
        report = self._report
        report.disk = self._disk() if self._paths else None
        record_keys = self._reader.keys(self._target.records, "records")
        keys = self._reader.keys(self._target.keys)
        # a key that ends in a slash is how consoles show a directory
        report.other_objects = [k for k in keys if not k.endswith("/") and not stored.is_object(k)]
        self._add_objects([key for key in keys if stored.is_object(key)])
        if report.disk:
            self._add_disk(report.disk)
            self._add_faults(report.disk)
        self._add_records(record_keys)
        report.verdicts = self._verdicts()
        gaps = {found.stream: list(found.missing) for found in report.verdicts if found.missing}
        if report.disk and gaps:
            self._look_again(gaps, set(keys))
            report.verdicts = self._verdicts()
        return report

    def _disk(self) -> Disk:
        disk = Disk(self._paths, self._target, self._reader)
        disk.look()
        return disk

    def _verdicts(self) -> list[Verdict]:
        return [
            verdict.judge(stream, found, partial=self._target.is_partial)
            for stream, found in sorted(self._evidence.items())
        ]

    def _add_objects(self, keys: list[str], gaps: Spans | None = None) -> None:
        report = self._report
        for content in self._reader.contents(keys):
            report.add_object(content)
            for stream, spans in _within(content.spans, gaps).items():
                found = self._evidence[stream]
                found.stored += [Stored(*span, content.place) for span in spans]
                # whose disk to look at, if the stream has no record
                found.instance = found.instance or stored.instance_of(content.place)
            self._reader.progress(
                report.objects,
                len(keys),
                lambda: f"{report.objects:,} objects, {report.lines:,} events",
            )

    def _add_disk(self, disk: Disk, gaps: Spans | None = None) -> None:
        """Add what lies on disk, after all objects."""
        evidence = self._evidence
        # records last: in a part of a prefix they count only for streams that are there
        for content in sorted(disk.found, key=lambda content: content.record is not None):
            for stream, spans in _within(content.spans, gaps).items():
                # of a stream that is stored here its files are ours, whatever the bucket is called
                ours = content.audited or (stream in evidence and evidence[stream].stored)
                is_new = content.record and self._target.is_partial and stream not in evidence
                if not ours or is_new:
                    disk.left_out += 1
                    continue
                evidence[stream].on_disk += spans
                if content.record and gaps is None:  # one that came later tells of later ids
                    self._add_record(content.record, on_disk=True)

    def _add_faults(self, disk: Disk) -> None:
        for content in disk.found:
            self._report.add_faults(content.faults, content.bad_lines)
            for stream in content.lost.keys() & self._evidence.keys():
                self._evidence[stream].quarantined_events += content.lost[stream]

    def _add_records(self, keys: list[str]) -> None:
        if self._target.is_partial:
            keys = [key for key in keys if stored.stream_of_record(key) in self._evidence]
        for found in self._reader.read(keys, stored.record):
            if isinstance(found, Fault):
                self._report.add_faults([found])
            else:
                self._add_record(found, on_disk=False)

    def _add_record(self, record: Record, *, on_disk: bool) -> None:
        found = self._evidence[record.stream]
        found.record, found.instance, found.record_on_disk = record.last, record.instance, on_disk

    def _look_again(self, gaps: Spans, known: set[str]) -> None:
        """Look once more for ids that are missing, in the order in which they move."""
        disk = self._disk()
        keys = [
            key
            for key in self._reader.keys(self._target.keys)
            if key not in known and stored.is_object(key) and stored.stream_of(key) in {None, *gaps}
        ]
        self._add_objects(keys, gaps)
        self._add_disk(disk, gaps)


def _within(spans: Spans, gaps: Spans | None) -> Spans:
    """Return the ids that lie in gaps, or all of them."""
    if gaps is None:
        return spans
    return {stream: intersect(spans[stream], gaps[stream]) for stream in spans.keys() & gaps.keys()}


def first_found(reports: Iterable[Report]) -> Report:
    """Return the first report that has streams. Raises TargetError if there is nothing at all."""
    seen = []
    for report in reports:
        if report.verdicts:
            return report
        seen.append(report)
    likeliest = seen[0]
    if not likeliest.faults:
        elsewhere = likeliest.disk.left_out if likeliest.disk else 0
        others = f" (--dlq has {elsewhere:,} files for other ranges)" if elsewhere else ""
        raise TargetError(
            f"{likeliest.target} holds no events and no stream has a record: "
            f"nothing stored yet, or wrong prefix?{others}"
        )
    return likeliest
