"""``estat dlq export``: copies files elsewhere, whole or as their events alone.

Never removes or replaces anything. Whole copies keep their area and slot, so the
target is a DLQ directory itself: it can be listed, verified and replayed, and a server
that starts on it recovers its journals. Each copy is written like a DLQ file: whole and
synced, or not at all. Of a journal that is still being written it has what is there now.
"""

import argparse
import os

from estat.audit.dlq_reader import DamagedRange, DlqFile, Journal
from estat.cli.dlq_files import Sums, counted, each, select
from estat.cli.problems import CommandError
from estat.disk import dlq_dir, files, whole_file
from estat.disk.dlq import DeadLetterQueue
from estat.errors import Unreadable
from estat.events import ids


def export(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Copy files and print the sum; return 1 if one could not be copied."""
    target = os.path.realpath(args.to)
    if os.path.commonpath([dlq.root, target]) == dlq.root:
        raise CommandError(f"--to {target} lies within the DLQ: the server would take the copies")

    def copy_whole(file: DlqFile, sums: Sums) -> None:
        path = os.path.relpath(file.entry.path, dlq.root)
        _write(target, path, file.data)
        sums.add(file.events)

    def copy_events(file: DlqFile, sums: Sums) -> None:
        lines = file.good_lines()
        if lines:
            _write(target, _name(file), lines)
            sums.add(file.events)
        if file.problem:
            raise Unreadable(f"{file.problem}; the rest is exported" if lines else file.problem)

    copy = copy_events if args.events else copy_whole
    entries = select(dlq, args.files)
    sums = each(dlq, entries, copy, "not exported", lambda sums: f"{sums.done} copied")
    print(f"exported to {target}: {counted(sums.done, sums.events)}; not exported: {sums.failed}")
    return 1 if sums.failed else 0


def _name(file: DlqFile) -> str:
    """Return the name of a file's events; that of a damaged range says what it is."""
    if isinstance(file, Journal):
        return f"{file.name}.{file.events}.jsonl"
    suffix = ".damaged" if isinstance(file, DamagedRange) else ".jsonl"
    return file.entry.name.removesuffix(ids.SUFFIX) + suffix


def _write(target: str, name: str, data: bytes) -> None:
    """Write a copy; one that is there already, byte for byte, is good as it is.

    Raises FileExistsError for any other file in its place, and DiskError.
    """
    path = os.path.join(target, name)
    # what root copies from a user's directory need not be written where that user may
    with dlq_dir.acting_as_owner(target):
        if (
            not whole_file.write_new(path, [data], files.BY_UMASK)
            and files.read_whole(path) != data
        ):
            raise FileExistsError(f"{path} is there already, and different")
