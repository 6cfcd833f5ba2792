"""``estat dlq export``: copies files elsewhere, whole or as their events alone.

Never removes or replaces anything. Whole copies keep their area and slot, so the
target is a DLQ directory itself: it can be listed, verified and replayed. Each copy
is written like a DLQ file: whole and synced, or not at all.
"""

import argparse
import os
import sys

from estat import dlq_file, encoder, files, identity
from estat.cli.dlq_files import (
    CommandError,
    content,
    counted,
    printable,
    relative,
    select,
)
from estat.cli.progress import ProgressBar
from estat.dlq import DeadLetterQueue, Entry
from estat.errors import DiskError, Unreadable


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
            if _copy(dlq, entry, target, args.events):
                done += 1
                events += entry.events
        except (Unreadable, DiskError, FileExistsError) as exc:
            bar.close()
            print(f"not exported {relative(dlq, entry)}: {printable(str(exc))}")
            failed += 1
    bar.close()
    print(f"exported to {target}: {counted(done, events)}; not exported: {failed}")
    return 1 if failed else 0


def _copy(dlq: DeadLetterQueue, entry: Entry, target: str, events_only: bool) -> bool:
    """Copy one file; False if there is nothing to copy.

    A copy that is there already, byte for byte, is good as it is. Raises FileExistsError
    for any other file in its place, Unreadable and DiskError.
    """
    data = content(entry)
    if data is None:
        return False  # stored or moved meanwhile
    path = os.path.join(target, os.path.relpath(entry.path, dlq.root))
    if events_only:
        batch = dlq_file.unpack(data)
        if not batch.events:
            return False  # a stream's record
        path = os.path.join(target, entry.name.removesuffix(identity.SUFFIX) + ".jsonl")
        try:
            data = encoder.gunzip(batch.payload)
        except ValueError as exc:
            raise Unreadable(str(exc)) from exc
    try:
        files.write_whole(path, [data], replace=False)
    except FileExistsError as exc:
        if _holds(path, data):
            return True
        raise FileExistsError(f"{path} is there already, and different") from exc
    return True


def _holds(path: str, data: bytes) -> bool:
    with files.disk_errors("read", path), open(path, "rb") as file:
        return file.read() == data
