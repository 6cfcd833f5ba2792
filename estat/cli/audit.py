"""``estat audit``: proves from the ids in the stored objects that nothing was lost or doubled.

Reads and changes nothing. While a server is at work, what moves must not fall
between two looks: events go from the journal to the DLQ to the store, or from the
journal to the store, and the record of a stream comes last. So the disk is read first,
in that order, then the records are listed, then the objects. Where ids are missing
after that, all is looked through once more for them (see ``audit_evidence``).
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

from estat.audit import dlq, stored
from estat.audit import evidence as audit_evidence
from estat.audit import target as audit_target
from estat.audit import verdict as audit
from estat.audit.dlq import Disk
from estat.audit.reader import Reader
from estat.audit.report import Report
from estat.audit.spans import Span
from estat.audit.stored import Fault
from estat.audit.target import Target, TargetError
from estat.audit.verdict import Evidence, Verdict
from estat.cli.arguments import whole_number
from estat.cli.progress import ProgressBar
from estat.config import loading
from estat.config.settings import Settings
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
        "waiting on disk or cut off by the range, 2 for usage and access errors.",
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
        "--dlq",
        action="append",
        metavar="DIR",
        help="a DLQ directory, whose events and journals are not missing; once for each host",
    )
    option("--deep", action="store_true", help="read every line; else metadata where it is whole")
    option("--json", action="store_true", help="print everything as one JSON object")
    option(
        "--concurrency",
        type=whole_number(1, _MAX_CONCURRENCY),
        default=16,
        metavar="N",
        help="requests to S3 at a time [16]; a directory is read by one",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Audit, print the report, and return the exit code."""
    bar = ProgressBar(sys.stderr, None)
    try:
        settings = _settings(args.target)
        targets = audit_target.parse(args.target, settings, with_disk=bool(args.dlq))
        report = _first_found(_audited(target, settings, args, bar) for target in targets)
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


def _first_found(reports: Iterable[Report]) -> Report:
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
            f"{likeliest.target} holds no events and no stream has a record: wrong prefix?{others}"
        )
    return likeliest


def _settings(text: str | None) -> Settings:
    """Return the server's settings; with a target, defaults do where there are none."""
    try:
        return loading.load()
    except SettingsError:
        bucket = audit_target.bucket_of(text)
        if bucket is None:
            raise
    return loading.load({"RAW_BUCKET": bucket}, env_file=os.devnull)


def _audited(
    target: Target, settings: Settings, args: argparse.Namespace, bar: ProgressBar
) -> Report:
    # the S3 client keeps as many connections as so many uploads need
    settings = replace(settings, upload_concurrency=args.concurrency)
    store = Stores(settings, also=[target.bucket]).get(target.bucket)
    # a directory's parsing holds the interpreter's lock: threads would only wait for each other
    reader = Reader(store, 0 if target.is_directory else args.concurrency)
    disk = _read_disk(target, args, bar) if args.dlq else None
    record_keys = reader.keys(target.records, _ticker(bar, "records"))
    keys = reader.keys(target.keys, _ticker(bar, "objects"))
    report = Report(target, args.deep, disk)
    evidence: dict[str, Evidence] = defaultdict(Evidence)
    object_keys = [key for key in keys if stored.is_object(key)]
    # a key that ends in a slash is how consoles show a directory
    report.other_objects = [k for k in keys if not k.endswith("/") and not stored.is_object(k)]
    _read_objects(reader, object_keys, report, evidence)
    if disk:
        audit_evidence.add_disk(disk, report, evidence)
    if target.is_partial:
        record_keys = [key for key in record_keys if _named(key) in evidence]
    _read_records(reader, record_keys, report, evidence)
    report.verdicts = _judged(target, evidence)
    gaps = {verdict.stream: list(verdict.missing) for verdict in report.verdicts if verdict.missing}
    if disk and gaps:
        _fill(gaps, reader, set(keys), report, evidence, args, bar)
        report.verdicts = _judged(target, evidence)
    return report


def _judged(target: Target, evidence: dict[str, Evidence]) -> list[Verdict]:
    return [
        audit.judge(stream, found, partial=target.is_partial)
        for stream, found in sorted(evidence.items())
    ]


def _read_disk(target: Target, args: argparse.Namespace, bar: ProgressBar) -> Disk:
    return dlq.read(args.dlq, target, deep=args.deep, tick=_ticker(bar, "files on disk"))


def _fill(
    gaps: dict[str, list[Span]],
    reader: Reader,
    known: set[str],
    report: Report,
    evidence: dict[str, Evidence],
    args: argparse.Namespace,
    bar: ProgressBar,
) -> None:
    """Look once more for ids that are missing, in the order in which they move."""
    disk = _read_disk(report.target, args, bar)
    keys = [
        key
        for key in reader.keys(report.target.keys, _ticker(bar, "objects"))
        if key not in known and stored.is_object(key) and stored.stream_of(key) in {None, *gaps}
    ]
    for content in reader.contents(keys, deep=report.deep):
        audit_evidence.count(content, report)
        audit_evidence.fill_stored(gaps, content, evidence)
    audit_evidence.fill_on_disk(gaps, disk, evidence)


def _read_objects(
    reader: Reader, keys: list[str], report: Report, evidence: dict[str, Evidence]
) -> None:
    bar = ProgressBar(sys.stderr, len(keys))
    try:
        for content in reader.contents(keys, deep=report.deep):
            audit_evidence.add_content(content, report, evidence)
            bar.update(
                report.objects, lambda: f"{report.objects:,} objects, {report.lines:,} events"
            )
    finally:
        bar.close()


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
