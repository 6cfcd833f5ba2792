"""``estat dlq export``: copies files elsewhere, whole or as their events alone.

Never removes or replaces anything. Whole copies keep their area and slot, so the
target is a DLQ directory itself: it can be listed, verified and replayed, and a server
that starts on it recovers its journals. Each copy is written like a DLQ file: whole and
synced, or not at all. Of a journal that is still being written it has what is there now.
"""

import argparse
import os
import sys
from typing import NamedTuple

from estat.audit import journal_area
from estat.cli.dlq_files import (
    CommandError,
    content,
    counted,
    is_range,
    printable,
    relative,
    select,
)
from estat.cli.progress import ProgressBar
from estat.disk import dlq_file, files
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.errors import DiskError, Unreadable
from estat.events import gzip, ids

_EVENTS, _DAMAGED = ".jsonl", ".damaged"


class _Copy(NamedTuple):
    """What is to be written of one file; ``problem`` is what it had to leave out."""

    path: str  # within the target
    data: bytes
    events: int
    problem: str = ""


def export(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Copy files and print the sum; return 1 if one could not be copied."""
    target = os.path.abspath(args.to)
    root = os.path.realpath(dlq.root)
    if os.path.commonpath([root, os.path.realpath(target)]) == root:
        raise CommandError(f"--to {target} lies within the DLQ: the server would take the copies")
    entries = select(dlq, args.files)
    bar = ProgressBar(sys.stderr, len(entries))
    done = events = failed = 0
    for number, entry in enumerate(entries):
        bar.update(number, lambda done=done: f"{done} copied")  # type: ignore[misc]
        try:
            copy = _events(entry) if args.events else _whole(dlq, entry)
            if copy is None:
                continue
            _write(os.path.join(target, copy.path), copy.data)
            done += 1
            events += copy.events
            if copy.problem:
                raise Unreadable(copy.problem)
        except (Unreadable, DiskError, FileExistsError) as exc:
            bar.close()
            print(f"not exported {relative(dlq, entry)}: {printable(str(exc))}")
            failed += 1
    bar.close()
    print(f"exported to {target}: {counted(done, events)}; not exported: {failed}")
    return 1 if failed else 0


def _whole(dlq: DeadLetterQueue, entry: Entry) -> _Copy | None:
    """Return a file as it is; None if it is gone. Raises DiskError."""
    path = os.path.relpath(entry.path, dlq.root)
    if journal_area.is_journal(entry):
        read = journal_area.read(entry)
        return None if read is None else _Copy(path, read.data, read.events)
    data = content(entry)
    return None if data is None else _Copy(path, data, entry.events)


def _events(entry: Entry) -> _Copy | None:
    """Return a file's events as lines; None if it is gone, or a stream's record.

    A damaged range is returned as it was, under a name that says so. Raises Unreadable,
    and DiskError.
    """
    if journal_area.is_journal(entry):
        return _journal_events(entry)
    data = content(entry)
    if data is None:
        return None
    stem = entry.name.removesuffix(ids.SUFFIX)
    try:
        if is_range(entry):
            return _Copy(stem + _DAMAGED, gzip.gunzip(data), entry.events)
        batch = dlq_file.unpack(data)
        lines = gzip.gunzip(batch.payload)
    except ValueError as exc:
        raise Unreadable(str(exc)) from exc
    return _Copy(stem + _EVENTS, lines, entry.events) if batch.events else None


def _journal_events(entry: Entry) -> _Copy | None:
    """Return a journal's good groups; None if there is none. Raises Unreadable, DiskError."""
    read = journal_area.read(entry)
    problem = journal_area.problem(read) if read else ""
    if read is None or not read.events:
        if problem:
            raise Unreadable(problem)
        return None
    path = f"{read.name}.{read.events}{_EVENTS}"
    return _Copy(path, read.lines, read.events, problem and f"{problem}; the rest is exported")


def _write(path: str, data: bytes) -> None:
    """Write a copy; one that is there already, byte for byte, is good as it is.

    Raises FileExistsError for any other file in its place, and DiskError.
    """
    if not files.write_new(path, [data], files.BY_UMASK) and files.read_whole(path) != data:
        raise FileExistsError(f"{path} is there already, and different")
