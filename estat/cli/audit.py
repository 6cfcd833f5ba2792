"""``estat audit``: proves from the ids in the stored objects that nothing was lost or doubled.

Reads and changes nothing. While a server is at work, what moves must not fall
between two looks: events go from memory to the DLQ to the store, and the record
of a stream comes last. So the DLQ is read first, then the records are listed,
then the objects.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from estat import audit, audit_content, config
from estat.audit import Evidence
from estat.audit_content import Content, Fault
from estat.cli import audit_disk, audit_target
from estat.cli.audit_disk import Disk
from estat.cli.audit_reader import Reader
from estat.cli.audit_report import Report
from estat.cli.audit_target import Target, TargetError
from estat.cli.progress import ProgressBar
from estat.config import Settings
from estat.errors import DiskError, SettingsError, StoreError
from estat.stores import Stores

#: Requests at a time, at most: each is a thread and a connection.
_MAX_CONCURRENCY = 256


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "audit",
        help="prove from the stored ids that nothing was lost or doubled",
        description="Reads the ids of the stored events and tells which streams are complete, "
        "open, cut off, or have gaps or repeats. Changes nothing. Exit status: 0 if every stream "
        "is complete, 1 for gaps, repeats or anything unreadable, 3 if streams are only open, "
        "waiting in the DLQ or cut off by the range, 2 for usage and access errors.",
    )
    option = parser.add_argument
    option(
        "target",
        nargs="?",
        metavar="TARGET",
        help="s3://BUCKET/PREFIX, or a directory; a PREFIX may go on with dt=… for a part of it "
        "[RAW_BUCKET and RAW_PREFIX]",
    )
    option(
        "--dlq", action="append", metavar="DIR",
        help="a DLQ directory, whose events are not missing; once for each host",
    )  # fmt: skip
    option("--deep", action="store_true", help="read every line; else metadata where it is whole")
    option("--json", action="store_true", help="print everything as one JSON object")
    option(
        "--concurrency", type=_concurrency, default=16, metavar="N",
        help="requests to S3 at a time [16]; a directory is read by one",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Audit, print the report, and return the exit code."""
    bar = ProgressBar(sys.stderr, None)
    try:
        settings = _settings(args.target)
        target = audit_target.parse(args.target, settings)
        report = _audited(target, settings, args, bar)
        if report.is_empty:
            raise TargetError(f"{target} holds no events and no stream has a record: wrong prefix?")
    except SettingsError as exc:
        return _complain(*exc.problems)
    except (TargetError, StoreError, DiskError) as exc:
        return _complain(" ".join(str(exc).split()))
    except KeyboardInterrupt:
        return 130
    finally:
        bar.close()
    sys.stdout.write(json.dumps(report.as_json()) + "\n" if args.json else report.as_text())
    sys.stdout.flush()
    return report.exit_code


def _settings(text: str | None) -> Settings:
    """Return the server's settings; with a target, defaults do where there are none."""
    try:
        return config.load()
    except SettingsError:
        bucket = audit_target.bucket_of(text)
        if bucket is None:
            raise
    return config.load({"RAW_BUCKET": bucket}, env_file=os.devnull)


def _audited(
    target: Target, settings: Settings, args: argparse.Namespace, bar: ProgressBar
) -> Report:
    # the S3 client keeps as many connections as so many uploads need
    store = Stores(replace(settings, upload_concurrency=args.concurrency)).get(target.bucket)
    # a directory's parsing holds the interpreter's lock: threads would only wait for each other
    reader = Reader(store, 0 if target.is_directory else args.concurrency)
    disk = None
    if args.dlq:
        disk = audit_disk.read(args.dlq, target, deep=args.deep, tick=_ticker(bar, "DLQ files"))
    record_keys = reader.keys(target.records, _ticker(bar, "records"))
    keys = reader.keys(target.keys, _ticker(bar, "objects"))
    report = Report(target, args.deep, disk)
    evidence: dict[str, Evidence] = defaultdict(Evidence)
    object_keys = [key for key in keys if audit_content.is_object(key)]
    # a key that ends in a slash is how consoles show a directory
    report.other_objects = [
        k for k in keys if not k.endswith("/") and not audit_content.is_object(k)
    ]
    _read_objects(reader, object_keys, report, evidence)
    if disk:
        _add_disk(disk, report, evidence)
    if target.is_partial:
        record_keys = [key for key in record_keys if _named(key) in evidence]
    _read_records(reader, record_keys, report, evidence)
    report.verdicts = [
        audit.judge(stream, found, partial=target.is_partial)
        for stream, found in sorted(evidence.items())
    ]
    return report


def _read_objects(
    reader: Reader, keys: list[str], report: Report, evidence: dict[str, Evidence]
) -> None:
    bar = ProgressBar(sys.stderr, len(keys))
    try:
        for content in reader.contents(keys, deep=report.deep):
            _add_content(content, report, evidence)
            bar.update(
                report.objects, lambda: f"{report.objects:,} objects, {report.lines:,} events"
            )
    finally:
        bar.close()


def _add_content(content: Content, report: Report, evidence: dict[str, Evidence]) -> None:
    report.objects += 1
    report.objects_read += content.was_read
    report.lines += content.events
    report.bad_lines += content.bad_lines
    report.bad_objects += any(fault.line is None for fault in content.faults)
    report.faults += content.faults
    for stream in content.spans:
        found = evidence[stream]
        found.stored += content.stored(stream)
        # whose disk to look at, if the stream has no record
        found.instance = found.instance or audit_content.instance_of(content.place)


def _add_disk(disk: Disk, report: Report, evidence: dict[str, Evidence]) -> None:
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


def _read_records(
    reader: Reader, keys: list[str], report: Report, evidence: dict[str, Evidence]
) -> None:
    for found in reader.records(keys):
        if isinstance(found, Fault):
            report.faults.append(found)
            report.bad_objects += 1
            continue
        stream = evidence[found.stream]
        stream.record, stream.instance = found.last, found.instance
        stream.record_on_disk = False


def _named(record_key: str) -> str:
    return record_key.rpartition("/")[2].removesuffix(".json")


def _ticker(bar: ProgressBar, what: str) -> Callable[[int], None]:
    return lambda count: bar.update(count, lambda: f"listing: {count:,} {what}")


def _complain(*problems: str) -> int:
    for problem in problems:
        sys.stderr.write(f"estat audit: {problem}\n")
    return 2


def _concurrency(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= _MAX_CONCURRENCY:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from 1 to {_MAX_CONCURRENCY}"
        )
    return number
