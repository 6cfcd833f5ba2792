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
from collections.abc import Callable, Iterable

from estat.audit import stored, verdict
from estat.audit.dlq import Disk
from estat.audit.reader import Reader
from estat.audit.report import Report
from estat.audit.stored import Fault
from estat.audit.target import Target, TargetError
from estat.audit.verdict import Evidence, Verdict
from estat.events.spans import Span, Stored, intersect

#: Is told how much is done, of how much if that is known, and a text about it.
Progress = Callable[[int, int | None, Callable[[], str]], None]


class Auditor:
    """One audit of a target, and of the DLQ directories ``paths``."""

    def __init__(
        self, target: Target, reader: Reader, paths: list[str], *, deep: bool, progress: Progress
    ) -> None:
        self._target = target
        self._reader = reader
        self._paths = paths
        self._progress = progress
        self._report = Report(target, deep, None)
        self._evidence: dict[str, Evidence] = defaultdict(Evidence)

    def audit(self) -> Report:
        """Read everything and judge each stream. Raises TargetError, DiskError and StoreError."""
        report = self._report
        report.disk = self._disk() if self._paths else None
        record_keys = self._keys(self._target.records, "records")
        keys = self._keys(self._target.keys, "objects")
        # a key that ends in a slash is how consoles show a directory
        report.other_objects = [k for k in keys if not k.endswith("/") and not stored.is_object(k)]
        self._add_objects([key for key in keys if stored.is_object(key)])
        if report.disk:
            self._add_disk(report.disk)
        self._add_records(record_keys)
        report.verdicts = self._verdicts()
        gaps = {found.stream: list(found.missing) for found in report.verdicts if found.missing}
        if report.disk and gaps:
            self._look_again(gaps, set(keys))
            report.verdicts = self._verdicts()
        return report

    def _disk(self) -> Disk:
        disk = Disk(self._paths, self._target, self._report.deep)
        disk.look(self._ticker("files on disk"))
        return disk

    def _keys(self, prefix: str, what: str) -> list[str]:
        return self._reader.keys(prefix, self._ticker(what))

    def _ticker(self, what: str) -> Callable[[int], None]:
        return lambda count: self._progress(count, None, lambda: f"listing: {count:,} {what}")

    def _verdicts(self) -> list[Verdict]:
        return [
            verdict.judge(stream, found, partial=self._target.is_partial)
            for stream, found in sorted(self._evidence.items())
        ]

    def _add_objects(self, keys: list[str]) -> None:
        report = self._report
        for content in self._reader.contents(keys, deep=report.deep):
            report.count(content)
            for stream in content.spans:
                found = self._evidence[stream]
                found.stored += content.stored(stream)
                # whose disk to look at, if the stream has no record
                found.instance = found.instance or stored.instance_of(content.place)
            self._progress(
                report.objects,
                len(keys),
                lambda: f"{report.objects:,} objects, {report.lines:,} events",
            )

    def _add_disk(self, disk: Disk) -> None:
        """Add what lies on disk, after all objects."""
        evidence = self._evidence
        stored_streams = set(evidence)
        # records last: in a part of a prefix they count only for streams that are there
        for found in sorted(disk.found, key=lambda found: found.record is not None):
            # of a stream that is stored here its files are ours, whatever the bucket is called
            ours = found.same_bucket or found.stream in stored_streams
            if not ours or (
                found.record and self._target.is_partial and found.stream not in evidence
            ):
                disk.left_out += 1
                continue
            stream = evidence[found.stream]
            stream.on_disk += found.spans
            if found.record:
                stream.record, stream.instance = found.record.last, found.record.instance
                stream.record_on_disk = True
        for name, events in disk.quarantined.items():
            if name in evidence:
                evidence[name].quarantined_events = events
        self._report.add_faults(disk.faults)

    def _add_records(self, keys: list[str]) -> None:
        if self._target.is_partial:
            keys = [key for key in keys if stored.stream_of_record(key) in self._evidence]
        for found in self._reader.read(keys, stored.record):
            if isinstance(found, Fault):
                self._report.add_faults([found])
                continue
            stream = self._evidence[found.stream]
            stream.record, stream.instance = found.last, found.instance
            stream.record_on_disk = False

    def _look_again(self, gaps: dict[str, list[Span]], known: set[str]) -> None:
        """Look once more for ids that are missing, in the order in which they move."""
        disk = self._disk()
        keys = [
            key
            for key in self._keys(self._target.keys, "objects")
            if key not in known and stored.is_object(key) and stored.stream_of(key) in {None, *gaps}
        ]
        evidence = self._evidence
        for content in self._reader.contents(keys, deep=self._report.deep):
            self._report.count(content)
            for stream in content.spans.keys() & gaps.keys():
                evidence[stream].stored += [
                    Stored(span.first, span.last, content.place)
                    for span in intersect(content.spans[stream], gaps[stream])
                ]
        for found in disk.found:
            if found.stream in gaps and (found.same_bucket or evidence[found.stream].stored):
                evidence[found.stream].on_disk += intersect(found.spans, gaps[found.stream])


def first_found(reports: Iterable[Report]) -> Report:
    """Return the first report that has streams. Raises TargetError if there is nothing at all."""
    seen = []
    for report in reports:
        if report.verdicts:
            return report
        seen.append(report)
    likeliest = seen[0]
    if likeliest.is_empty:
        elsewhere = likeliest.disk.left_out if likeliest.disk else 0
        others = f" (--dlq has {elsewhere:,} files for other ranges)" if elsewhere else ""
        raise TargetError(
            f"{likeliest.target} holds no events and no stream has a record: "
            f"nothing stored yet, or wrong prefix?{others}"
        )
    return likeliest
