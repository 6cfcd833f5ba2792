"""Prove from the stored ids that nothing was lost or doubled.

Reads the ids of the stored events and tells which streams are complete,
open, cut off, or have gaps or repeats. Only --give-up writes. Exit status:
0 if every stream is complete; 1 for gaps, repeats, or anything unreadable or
not as its metadata says; 3 if streams are only open, waiting on disk or cut
off by the range; 2 for usage and access errors. With --receipt: 0 if all are
stored, 3 if some are on disk, 1 if unknown.

Example: estat audit s3://my-bucket/raw --dlq /var/lib/estat/dlq
"""

import argparse
import os
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from estat.audit import hour
from estat.audit import target as audit_target
from estat.audit.auditor import Auditor, first_found
from estat.audit.hour import HourReport
from estat.audit.reader import Reader
from estat.audit.receipts import Receipt, Receipts, look_up, receipt
from estat.audit.report import Report
from estat.audit.target import Target, TargetError
from estat.cli import output
from estat.cli.arguments import add_number, argument
from estat.cli.output import CommandError
from estat.config import loading
from estat.config.settings import Settings
from estat.disk import dlq_dir, files
from estat.disk.server_directory import SERVERS, queues
from estat.errors import ObjectExists, SettingsError
from estat.events.batch import JSON, crc32_of
from estat.stores import Stores

#: Requests at a time, at most: each is a thread and a connection.
_MAX_CONCURRENCY = 256

#: Between two looks at an hour that is waited for.
_POLL_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments."""
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
    option(
        "--deep",
        action="store_true",
        help="read every line, and compare it with the metadata; else that alone is read, "
        "where the object has the length that it names",
    )
    text = "tell instead where this event is, or all from ID to ID; may be given several times"
    option("--receipt", action="append", type=_receipt, metavar="ID[..ID]", help=text)
    option("--json", action="store_true", help="print everything as one JSON object")
    text = "make N requests to S3 at a time; a directory is read by one"
    add_number(parser, "--concurrency", 16, text, high=_MAX_CONCURRENCY)
    _add_hour(parser)


def _add_hour(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option(
        "--hour",
        type=argument(_partition, "an hour as 2026-11-27T18"),
        metavar="HOUR",
        help="tell from the bucket alone whether this hour is complete (0), a server has not "
        "closed it yet (3), or events are missing (1); as 2026-11-27T18 in PARTITION_TZ",
    )
    option("--wait", action="store_true", help="with --hour: wait until it is not open any more")
    option(
        "--give-up",
        action="append",
        default=[],
        metavar="SERVER",
        help="with --hour: say in the bucket, for good, that this server's events of the hour are "
        "not waited for",
    )


def run(args: argparse.Namespace) -> int:
    """Audit, print the report, and return the exit code."""
    if args.hour and (args.dlq or args.receipt):
        args.parser.error("--hour is answered from the bucket alone, without --dlq or --receipt")
    if not args.hour and (args.wait or args.give_up):
        args.parser.error("--wait and --give-up are for an --hour")
    settings = _settings(args.target)
    targets = audit_target.possible(args.target, settings, with_disk=bool(args.dlq))
    report: Report | HourReport | Receipts
    if args.hour:
        if targets[0].part:
            args.parser.error("--hour names the part of the prefix: leave it out of TARGET")
        report = _audit_hour(targets[0]._replace(part=f"{args.hour}/"), settings, args)
    elif args.receipt:
        report = _look_up(targets[0], settings, args)
    else:
        report = first_found(_audit(target, settings, args) for target in targets)
    if args.json:
        output.say_json(report.as_json())
    else:
        output.say(*report.as_lines())
    return report.exit_code


def _partition(text: str) -> str:
    """Read an hour; return its partition. Raises ValueError."""
    hour = datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC)  # whatever its zone is
    return f"{hour:dt=%Y-%m-%d/hr=%H}"


def _settings(text: str | None) -> Settings:
    """Return the server's settings; with a target, defaults do where there are none."""
    try:
        return loading.load()
    except SettingsError as exc:
        if not text:
            hint = "or name what to audit: s3://BUCKET/PREFIX, or a directory such as data/raw"
            raise CommandError(*exc.problems, hint) from exc
    return loading.load({"RAW_BUCKET": audit_target.bucket_of(text)}, env_file=os.devnull)


def _audit(target: Target, settings: Settings, args: argparse.Namespace) -> Report:
    reader = _reader(target, settings, args)
    with dlq_dir.acting_as_owner(str(target), target.is_directory):
        return Auditor(target, reader, args.dlq or []).audit()


def _look_up(target: Target, settings: Settings, args: argparse.Namespace) -> Receipts:
    reader = _reader(target, settings, args)
    paths = args.dlq or _own_disk(settings.dlq_dir)
    with dlq_dir.acting_as_owner(str(target), target.is_directory):
        return look_up(args.receipt, target, reader, paths, settings.partition_tz)


def _own_disk(dlq_dir: str) -> list[str]:
    """Return DLQ_DIR if a server has used it. Raises DiskError if that can't be told."""
    with files.disk_errors("read", dlq_dir), suppress(FileNotFoundError, NotADirectoryError):
        if SERVERS in os.listdir(dlq_dir) or queues(dlq_dir):
            return [dlq_dir]
    return []


def _audit_hour(target: Target, settings: Settings, args: argparse.Namespace) -> HourReport:
    reader, zone = _reader(target, settings, args), settings.partition_tz.key
    with dlq_dir.acting_as_owner(str(target), target.is_directory):
        if not reader.keys(target._replace(part="").closed, most=1):
            raise TargetError(f"{target}: no server has ever told of an hour beside it")
        report = hour.read_hour(target, reader, zone)
        for server in args.give_up:
            if server not in (known.marker.server for known in report.servers):
                raise CommandError(f"--give-up {server}: no such server in this hour")
            key, body = hour.give_up(target, server)
            with suppress(ObjectExists):
                reader.store.put(key, body, crc32_of(body), JSON, {})
        if args.give_up:
            report = hour.read_hour(target, reader, zone)
        seen: HourReport | None = None
        while args.wait and report.state == hour.OPEN:
            time.sleep(_POLL_SECONDS)
            told = hour.read_markers(target, reader, zone)
            # the objects only once all markers say that they are there
            if told.state != hour.OPEN and told != seen:
                seen = told
                report = hour.read_hour(target, reader, zone)
        return report


def _reader(target: Target, settings: Settings, args: argparse.Namespace) -> Reader:
    # a directory's parsing holds the interpreter's lock: threads would only wait for each other
    threads = 0 if target.is_directory else args.concurrency
    # the S3 client keeps as many connections as so many uploads need
    settings = replace(settings, upload_concurrency=max(1, threads))
    store = Stores(settings, also=[target.bucket]).get(target.bucket)
    return Reader(store, threads, deep=args.deep, progress=output.progress.update)


def _receipt(text: str) -> Receipt:
    try:
        return receipt(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text[:100]!r}: {exc}") from exc
