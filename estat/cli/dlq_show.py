"""``estat dlq show``: what is known of files, and their events, as JSON lines.

Reads as zcat does, so it shows a damaged file up to the damage; of a journal also the
groups behind it.
"""

import argparse
import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from estat.audit import journal_area
from estat.cli.dlq_files import DAMAGED_RANGE, CommandError, is_range, relative, select
from estat.disk import dlq_file, files
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.errors import DiskError, Unreadable
from estat.events import stored_line


def show(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Print the header and the first events of files as JSON lines; return 1 if one is damaged."""
    code = 0
    limit = None if args.all else args.events
    for entry in select(dlq, args.files):
        try:
            if journal_area.is_journal(entry):
                _show_journal(dlq, entry, limit)
            else:
                _show(dlq, entry, limit)
        except (Unreadable, DiskError) as exc:
            sys.stdout.flush()
            print(f"estat dlq: {relative(dlq, entry)}: {exc}", file=sys.stderr)
            code = 1
    return code


def _show(dlq: DeadLetterQueue, entry: Entry, limit: int | None) -> None:
    """Print one file. Raises Unreadable where it is damaged, and DiskError."""
    try:
        with files.disk_errors("read", entry.path), files.reading(entry.path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if is_range(entry):
                # bytes as they were: all of it is lines, or what was to be some
                _print_about(dlq, entry, size_bytes, {"reason": DAMAGED_RANGE})
                _show_lines(_unzipped(file), limit)
                return
            _print_about(dlq, entry, size_bytes, dlq_file.read_header(file))
            file.seek(0)
            lines = _unzipped(file)
            next(lines, None)  # the header
            _show_lines(lines, limit)
    except DiskError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise _gone(dlq, entry) from exc
        raise


def _show_journal(dlq: DeadLetterQueue, entry: Entry, limit: int | None) -> None:
    """Print a journal's good groups. Raises Unreadable where others are damaged, and DiskError."""
    read = journal_area.read(entry)
    if read is None:
        raise _gone(dlq, entry)
    owner = {"reason": journal_area.REASON, "owner_alive": journal_area.is_owned(entry)}
    _print_about(dlq, entry, len(read.data), owner | read.facts)
    _show_lines(iter(read.lines.splitlines(keepends=True)), limit)
    if problem := journal_area.problem(read):
        raise Unreadable(problem)


def _gone(dlq: DeadLetterQueue, entry: Entry) -> CommandError:
    return CommandError(f"{relative(dlq, entry)} is gone: stored or moved meanwhile", code=1)


def _print_about(
    dlq: DeadLetterQueue, entry: Entry, size_bytes: int, facts: dict[str, Any]
) -> None:
    slot = None if journal_area.is_journal(entry) else entry.slot or None
    place = {"path": os.path.relpath(entry.path, dlq.root), "area": entry.area, "slot": slot}
    print(json.dumps({**place, "size_bytes": size_bytes, **facts}))


def _unzipped(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a gzip file. Raises Unreadable where it is damaged."""
    with gzip.GzipFile(fileobj=file) as lines:
        try:
            yield from lines
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise Unreadable(f"damaged from here on: {exc}") from exc


def _show_lines(lines: Iterator[bytes], limit: int | None) -> None:
    for line in islice(lines, limit):
        _print_event(line)


def _print_event(line: bytes) -> None:
    """Print a line as it is if it is JSON; what is printed is JSON lines in any case."""
    try:
        stored_line.parse(line.decode())
    except ValueError:
        print(json.dumps({"not_json": line.decode(errors="replace")}))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(line.rstrip(b"\n") + b"\n")
        sys.stdout.buffer.flush()
