"""``estat dlq ls``: what lies in the DLQ, and why.

It walks over the names, and opens only the files whose lines it prints, one at a
time; with ``--limit`` it holds no more names than that. Journals are all read, for
their names do not tell their events.
"""

import argparse
import heapq
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from estat.audit import journal_area
from estat.cli.dlq_files import (
    DAMAGED_RANGE,
    age,
    content,
    counted,
    every,
    is_range,
    printable,
    size,
    tell_of_others,
    why_not_sent,
)
from estat.disk import dlq_file, files
from estat.disk.dlq import QUARANTINE, DeadLetterQueue, Entry, Totals, is_due
from estat.errors import DiskError, NotOurs, Unreadable

#: The last column is cut at the terminal's edge, but not to fewer characters than these.
_MIN_WHY_CHARS = 30

#: What is told of a journal's owner beside its reason; of other files nothing is.
_OWNER = {True: ", its process lives", False: ", its process is dead", None: ""}

#: The reason of what the server leaves alone, for it never writes such a file.
NOT_OURS = "set aside"

_COLUMNS = "{:<10} {:<13} {:>7} {:>7} {:>10}  {}  {}  "


class _Seen(NamedTuple):
    """A file as the walk met it; ``opened`` is its batch's time, or else its own."""

    opened: float
    entry: Entry
    size_bytes: int
    #: What is known of a journal, which had to be read.
    facts: dict[str, Any] | None = None

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
        tell_of_others(dlq)
    return 0


def _walk(dlq: DeadLetterQueue, tally: list[int]) -> Iterator[_Seen]:
    """Yield all files, and add them up on the way."""
    for entry in every(dlq):
        seen = _journal(entry) if journal_area.is_journal(entry) else _file(entry)
        if seen:
            tally[0] += 1
            tally[1] += seen.entry.events
            tally[2] += seen.size_bytes
            yield seen


def _file(entry: Entry) -> _Seen | None:
    """Return a file by its name and size; None if it is gone. Raises DiskError."""
    try:
        status = os.stat(entry.path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DiskError("stat", entry.path, exc) from exc
    opened = status.st_mtime if entry.opened is None else entry.opened
    return _Seen(opened, entry, status.st_size)


def _journal(entry: Entry) -> _Seen | None:
    """Return a journal by its content; None if it is gone. Raises DiskError."""
    try:
        read = journal_area.read(entry)
    except DiskError as exc:
        seen = _file(entry)
        return seen and seen._replace(facts={"reason": "not read", "error": str(exc)})
    if read is None:
        return None
    problem = journal_area.problem(read)
    reason = NOT_OURS if read.content.not_ours else journal_area.REASON
    facts = read.facts | {"reason": reason, "error": problem or None}
    counted_entry = replace(entry, events=read.events)
    return _Seen(read.opened, counted_entry, len(read.data), facts)


def _describe(dlq: DeadLetterQueue, found: _Seen, now: float) -> dict[str, Any] | None:
    """Return what is to be told of a file; None if it is gone."""
    entry = found.entry
    facts = _file_facts(entry) if found.facts is None else found.facts
    if facts is None:
        return None
    is_journal = journal_area.is_journal(entry)
    slot = None if is_journal else entry.slot or None
    return {
        "area": entry.area,
        "slot": slot,
        "due": slot is not None and is_due(slot, now),
        "opened": found.opened,
        "age_seconds": round(max(0.0, now - found.opened), 3),
        "events": entry.events,
        "size_bytes": found.size_bytes,
        "bucket": facts.get("bucket"),
        "key": facts.get("key"),
        "stream": entry.slot if is_journal else facts.get("stream"),
        "owner_alive": journal_area.is_owned(entry) if is_journal else None,
        "file": os.path.join(entry.slot, entry.name) if is_journal else entry.name,
        "path": os.path.relpath(entry.path, dlq.root),
        "reason": facts["reason"],
        "error": facts["error"],
    }


def _file_facts(entry: Entry) -> dict[str, Any] | None:
    """Return what a file's header tells, with its reason and error; None if it is gone."""
    if is_range(entry):
        return {"reason": DAMAGED_RANGE, "error": None}
    header: dict[str, Any] = {}
    try:
        with files.reading(entry.path) as file:
            header = dlq_file.read_header(file)
        reason, error = header.get("reason"), header.get("error")
        dlq_file.check_header(entry.name, header)
        if why := why_not_sent(header["bucket"]):
            raise NotOurs(why)
        if entry.area == QUARANTINE and (data := content(entry)) is not None:
            dlq_file.unpack(data)  # why it is there is written nowhere: find it out again
    except FileNotFoundError:
        return None
    except NotOurs as exc:
        reason, error = NOT_OURS, str(exc)
        header = {name: value for name, value in header.items() if isinstance(value, str)}
    except Unreadable as exc:
        reason, error = "unreadable", str(exc)
    except DiskError as exc:
        reason, error = "not read", str(exc)
    except OSError as exc:
        reason, error = "not read", exc.strerror
    return header | {"reason": reason, "error": error}


def _print_text(described: Iterator[dict[str, Any]], totals: Totals, listed: int) -> None:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if listed:
        print(_COLUMNS.format("AREA", "FROM", "AGE", "EVENTS", "SIZE", "BUCKET", "FILE") + "WHY")
    for facts in described:
        why = f"{facts['reason']}{_OWNER[facts['owner_alive']]}"
        if facts["error"]:
            why += f": {facts['error']}"
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
