"""``estat dlq show``: what is known of files, and their events, as JSON lines.

Reads as zcat does, so it shows a damaged file up to the damage; of a journal also the
groups behind it.
"""

import argparse
import json
import os
import sys
from itertools import islice

from estat.audit import dlq_reader
from estat.audit.dlq_reader import Gone
from estat.cli.dlq_files import relative, select
from estat.cli.problems import CommandError, complain
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.errors import DiskError, Unreadable
from estat.events import json_text


def show(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Print the header and the first events of files as JSON lines; return 1 if one is damaged."""
    code = 0
    limit = None if args.all else args.events
    for entry in select(dlq, args.files):
        try:
            _show(dlq, entry, limit)
        except Gone as exc:
            problem = f"{relative(dlq, entry)} is gone: stored or moved meanwhile"
            raise CommandError(problem, code=1) from exc
        except (Unreadable, DiskError) as exc:
            sys.stdout.flush()
            complain("dlq", [f"{relative(dlq, entry)}: {exc}"])
            code = 1
    return code


def _show(dlq: DeadLetterQueue, entry: Entry, limit: int | None) -> None:
    """Print what one file holds. Raises Unreadable where it is damaged, Gone, and DiskError."""
    file = dlq_reader.found(entry)
    about = {
        "path": os.path.relpath(entry.path, dlq.root),
        "area": entry.area,
        "slot": None if dlq_reader.is_journal(entry) else entry.slot or None,
        "size_bytes": len(file.data),
    }
    print(json.dumps(about | file.facts()))
    for line in islice(file.lines(), limit):
        _print_event(line)
    if file.problem:
        raise Unreadable(file.problem)


def _print_event(line: bytes) -> None:
    """Print a line as it is if it is JSON; what is printed is JSON lines in any case.

    What a terminal might act upon is escaped.
    """
    try:
        text = line.decode().rstrip("\n")
        json_text.parse(line)
    except ValueError:
        text = json.dumps({"not_json": line.decode(errors="replace")})
    shown = "".join(c if c.isprintable() or c == "\t" else json.dumps(c)[1:-1] for c in text)
    sys.stdout.flush()
    sys.stdout.buffer.write(shown.encode() + b"\n")
    sys.stdout.buffer.flush()
