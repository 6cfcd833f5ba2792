"""``estat dlq ls`` and ``show``: what lies in the DLQ, and why.

``ls`` walks over the names, and opens only the files whose lines it prints, one at
a time; with ``--limit`` it holds no more names than that. ``show`` reads as zcat
does, so it shows a damaged file up to the damage.
"""

import argparse
import gzip
import heapq
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from estat import dlq_file, event, files
from estat.cli.dlq_files import (
    CommandError,
    age,
    content,
    counted,
    printable,
    relative,
    select,
    size,
)
from estat.dlq import QUARANTINE, DeadLetterQueue, Entry, Totals, slot_of
from estat.errors import DiskError, Unreadable

#: The last column is cut at the terminal's edge, but not to fewer characters than these.
_MIN_WHY_CHARS = 30

_COLUMNS = "{:<10} {:<13} {:>7} {:>7} {:>10}  {}  {}  "


class _Seen(NamedTuple):
    """A file as the walk met it; ``opened`` is its batch's time, or else its own."""

    opened: float
    entry: Entry
    size_bytes: int

    @property
    def age_key(self) -> tuple[float, str]:
        """Sorts the oldest batch first."""
        return (self.opened, self.entry.name)


def ls(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Print a line for each file, the oldest batch first, and their total; return 0."""
    now = time.time()
    tally = [0, 0, 0]
    seen = _walk(dlq, tally)
    if args.limit:
        listed = heapq.nsmallest(args.limit, seen, key=lambda found: found.age_key)
    else:
        listed = sorted(seen, key=lambda found: found.age_key)
    totals = Totals(*tally)
    described = (facts for found in listed if (facts := _describe(dlq, found, now)))
    if args.json:
        _print_json(described, totals)
    else:
        _print_text(described, totals, len(listed))
    return 0


def _walk(dlq: DeadLetterQueue, tally: list[int]) -> Iterator[_Seen]:
    """Yield all files, and add them up on the way."""
    for entry in dlq.every():
        try:
            status = os.stat(entry.path)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise DiskError("stat", entry.path, exc) from exc
        tally[0] += 1
        tally[1] += entry.events
        tally[2] += status.st_size
        opened = status.st_mtime if entry.opened is None else entry.opened
        yield _Seen(opened, entry, status.st_size)


def _describe(dlq: DeadLetterQueue, found: _Seen, now: float) -> dict[str, Any] | None:
    """Return what is to be told of a file; None if it is gone."""
    entry = found.entry
    header: dict[str, Any] = {}
    try:
        with open(entry.path, "rb") as file:
            header = dlq_file.read_header(file)
        reason, error = header.get("reason"), header.get("error")
        if entry.area == QUARANTINE and (data := content(entry)) is not None:
            dlq_file.unpack(data)  # why it is there is written nowhere: find it out again
    except FileNotFoundError:
        return None
    except Unreadable as exc:
        reason, error = "unreadable", str(exc)
    except DiskError as exc:
        reason, error = "not read", str(exc)
    except OSError as exc:
        reason, error = "not read", exc.strerror
    return {
        "area": entry.area,
        "slot": entry.slot or None,
        "due": bool(entry.slot) and entry.slot <= slot_of(now),
        "opened": found.opened,
        "age_seconds": round(max(0.0, now - found.opened), 3),
        "events": entry.events,
        "size_bytes": found.size_bytes,
        "bucket": header.get("bucket"),
        "key": header.get("key"),
        "file": entry.name,
        "path": os.path.relpath(entry.path, dlq.root),
        "reason": reason,
        "error": error,
    }


def _print_text(described: Iterator[dict[str, Any]], totals: Totals, listed: int) -> None:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if listed:
        print(_COLUMNS.format("AREA", "FROM", "AGE", "EVENTS", "SIZE", "BUCKET", "FILE") + "WHY")
    for facts in described:
        why = f"{facts['reason']}: {facts['error']}" if facts["error"] else str(facts["reason"])
        line = _COLUMNS.format(
            facts["area"],
            "due" if facts["due"] else facts["slot"] or "-",
            age(facts["age_seconds"]),
            facts["events"],
            size(facts["size_bytes"]),
            printable(facts["bucket"] or "-"),
            printable(facts["file"]),
        )
        room = None if columns is None else max(_MIN_WHY_CHARS, columns - len(line))
        print(line + printable(why)[:room])
    left_out = totals.files - listed
    more = f"; the {left_out} youngest files are not listed" if left_out > 0 else ""
    print(f"total: {counted(totals.files, totals.events)}, {size(totals.size_bytes)}{more}")


def _print_json(described: Iterator[dict[str, Any]], totals: Totals) -> None:
    """Print one JSON document, a file a line, without holding all of it."""
    print('{"files": [', end="")
    for number, facts in enumerate(described):
        print(",\n" if number else "\n", json.dumps(facts), sep="", end="")
    print('\n], "total": ' + json.dumps(totals._asdict()) + "}")


def show(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Print the header and the first events of files as JSON lines; return 1 if one is damaged."""
    code = 0
    for entry in select(dlq, args.files):
        try:
            _show(dlq, entry, None if args.all else args.events)
        except (Unreadable, DiskError) as exc:
            sys.stdout.flush()
            print(f"estat dlq: {relative(dlq, entry)}: {exc}", file=sys.stderr)
            code = 1
    return code


def _show(dlq: DeadLetterQueue, entry: Entry, limit: int | None) -> None:
    """Print one file. Raises Unreadable where it is damaged, and DiskError."""
    path = os.path.relpath(entry.path, dlq.root)
    try:
        with files.disk_errors("read", entry.path), open(entry.path, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            header = dlq_file.read_header(file)
            place = {"path": path, "area": entry.area, "slot": entry.slot or None}
            print(json.dumps({**place, "size_bytes": size_bytes, **header}))
            file.seek(0)
            _show_events(file, limit)
    except DiskError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise CommandError(f"{path} is gone: stored or moved meanwhile", code=1) from exc
        raise


def _show_events(file: Any, limit: int | None) -> None:
    with gzip.GzipFile(fileobj=file) as lines:
        try:
            lines.readline()  # the header
            for _ in count() if limit is None else range(limit):
                line = lines.readline()
                if not line:
                    return
                _print_event(line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise Unreadable(f"damaged from here on: {exc}") from exc


def _print_event(line: bytes) -> None:
    """Print a line as it is if it is JSON; what is printed is JSON lines in any case."""
    try:
        event.parse(line.decode())
    except ValueError:
        print(json.dumps({"not_json": line.decode(errors="replace")}))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(line.rstrip(b"\n") + b"\n")
        sys.stdout.buffer.flush()
