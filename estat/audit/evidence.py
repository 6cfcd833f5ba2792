"""From what the audit reads to the evidence on each stream.

While it reads, a server accepts and moves events, and may store a later one before an
earlier one. So of events that were accepted after their stream's journal was read some
are met and others are not. What was met proves that all lower ids had been given by
then, and were in a journal, the DLQ or the store: a second look in the same order, begun
after the first has ended, meets them. It is for the gaps of the first look only. What
has been given since is none of this audit's business, or there would be no end.
"""

from estat.audit import stored as audit_content
from estat.audit.dlq import Disk
from estat.audit.report import Report
from estat.audit.spans import Span, Stored, intersect
from estat.audit.stored import Content
from estat.audit.verdict import Evidence


def count(content: Content, report: Report) -> None:
    """Count an object that was read."""
    report.objects += 1
    report.objects_read += content.was_read
    report.lines += content.events
    report.bad_lines += content.bad_lines
    report.bad_objects += any(fault.line is None for fault in content.faults)
    report.faults += content.faults


def add_content(content: Content, report: Report, evidence: dict[str, Evidence]) -> None:
    """Add what an object holds."""
    count(content, report)
    for stream in content.spans:
        found = evidence[stream]
        found.stored += content.stored(stream)
        # whose disk to look at, if the stream has no record
        found.instance = found.instance or audit_content.instance_of(content.place)


def add_disk(disk: Disk, report: Report, evidence: dict[str, Evidence]) -> None:
    """Add what lies on disk, after all objects."""
    stored = set(evidence)
    # records last: in a part of a prefix they count only for streams that are there
    for found in sorted(disk.found, key=lambda found: found.record is not None):
        # of a stream that is stored here its files are ours, whatever the bucket is called
        ours = found.same_bucket or found.stream in stored
        if not ours or (found.record and report.target.is_partial and found.stream not in evidence):
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
    report.faults += disk.faults
    report.bad_lines += sum(fault.line is not None for fault in disk.faults)
    report.bad_objects += sum(fault.line is None for fault in disk.faults)


def fill_stored(
    gaps: dict[str, list[Span]], content: Content, evidence: dict[str, Evidence]
) -> None:
    """Add what an object of the second look holds of the gaps."""
    for stream in content.spans.keys() & gaps.keys():
        evidence[stream].stored += [
            Stored(span.first, span.last, content.place)
            for found in content.spans[stream]
            for span in intersect([found], gaps[stream])
        ]


def fill_on_disk(gaps: dict[str, list[Span]], disk: Disk, evidence: dict[str, Evidence]) -> None:
    """Add what lay on disk of the gaps at the second look."""
    for found in disk.found:
        if found.stream in gaps and (found.same_bucket or evidence[found.stream].stored):
            evidence[found.stream].on_disk += [
                span for one in found.spans for span in intersect([one], gaps[found.stream])
            ]
