"""``estat dlq ls``: what lies in the DLQ, and why.

It walks over the names, and opens only the files whose lines it prints, one at a
time. Journals are all read, for their names do not tell their events.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from estat.audit import dlq_reader
from estat.audit.dlq_reader import BatchFile, DlqFile, Gone, Journal
from estat.cli.dlq_files import counted, tell_of_others
from estat.cli.output import say, say_json
from estat.disk import dlq_file
from estat.disk.directory_lock import stream_of
from estat.disk.dlq import QUARANTINE, DeadLetterQueue, Entry, Totals
from estat.disk.slots import is_due
from estat.errors import DiskError, NotOurs, Unreadable
from estat.text import hidden

#: Words for a journal's owner, beside its reason. Other files have none.
_OWNER = {True: ", its server lives", False: ", its server is dead", None: ""}

#: The reason of a file that is none of this server's.
_SET_ASIDE = "set aside"

_HOUR_CHARS = len("2026-11-23T02")  # of a slot

_COLUMNS = "{:<10} {:<13} {:>7} {:>7} {:>10}  {}"


class _Seen(NamedTuple):
    """A file as the walk met it; ``opened`` is its batch's time, or else its own."""

    opened: float
    entry: Entry
    events: int
    size_bytes: int
    #: What is known of a journal, which had to be read; else nothing yet.
    facts: dict[str, Any]


def ls(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """List the files, the oldest batch first.

    A line for each: where it is, when it is due, how old it is, what it holds,
    and why it is there.

    Example: estat dlq ls --limit 20
    """
    seen: list[_Seen] = []
    for entry in dlq_reader.every(dlq.root):
        with contextlib.suppress(Gone):
            seen.append(_seen(dlq, entry))
    events = sum(found.events for found in seen)
    totals = Totals(len(seen), events, sum(found.size_bytes for found in seen))
    seen.sort(key=lambda found: (found.opened, found.entry.name))
    listed = seen[: args.limit]
    described = _described(dlq, listed)
    if args.json:
        say_json({"files": list(described), "total": totals._asdict()})
    else:
        _print_text(described, totals, len(listed))
        tell_of_others(dlq)
    return 0


def _seen(dlq: DeadLetterQueue, entry: Entry) -> _Seen:
    """Return a file by its name and size, a journal by its content. Raises Gone, and DiskError."""
    file = dlq_reader.found(entry)
    facts = _facts(dlq, file) if isinstance(file, Journal) else {}
    with dlq_reader.reading(entry):
        status = os.stat(entry.path, follow_symlinks=False)
    opened = facts.get("opened", entry.opened)
    opened = status.st_mtime if opened is None else opened
    return _Seen(opened, entry, facts.get("events", entry.events), status.st_size, facts)


def _described(dlq: DeadLetterQueue, listed: list[_Seen]) -> Iterator[dict[str, Any]]:
    """Yield what is printed of each file that is still there."""
    now = time.time()
    for found in listed:
        entry = found.entry
        try:
            facts = found.facts or _facts(dlq, dlq_reader.found(entry))
        except Gone:
            continue
        is_journal = dlq_reader.is_journal(entry)
        slot = None if is_journal else entry.slot or None
        # a file that this server did not write may hold a value that is no text
        texts = {name: value for name, value in facts.items() if isinstance(value, str)}
        aside = {"set_aside": texts["set_aside"]} if "set_aside" in texts else {}
        yield aside | {
            "area": entry.area,
            "slot": slot,
            "due": slot is not None and is_due(slot, now),
            "opened": found.opened,
            "age_seconds": round(max(0.0, now - found.opened), 3),
            "events": found.events,
            "size_bytes": found.size_bytes,
            "bucket": texts.get("bucket"),
            "key": texts.get("key"),
            "stream": stream_of(entry.slot) if is_journal else texts.get("stream"),
            "owner_alive": facts["owner_alive"] if is_journal else None,
            "file": os.path.join(entry.slot, entry.name) if is_journal else entry.name,
            "path": os.path.relpath(entry.path, dlq.root),
            "reason": texts.get("reason"),
            "error": hidden(texts.get("error", "")) or None,
        }


def _facts(dlq: DeadLetterQueue, file: DlqFile) -> dict[str, Any]:
    """Return what a file tells of itself, and why the server can't send it. Raises Gone."""
    facts: dict[str, Any] = {}
    try:
        facts = file.facts()
        facts |= {"error": file.problem} if isinstance(file, Journal) else {}
        _check(dlq, file, facts)
    except NotOurs as exc:
        # with the label of dlq_events_set_aside
        facts |= {"reason": _SET_ASIDE, "error": str(exc), "set_aside": exc.reason}
    except Unreadable as exc:
        facts |= {"reason": "unreadable", "error": str(exc)}
    except DiskError as exc:
        facts |= {"reason": "not read", "error": str(exc)}
    return facts | ({"owner_alive": file.is_owned} if isinstance(file, Journal) else {})


def _check(dlq: DeadLetterQueue, file: DlqFile, facts: dict[str, Any]) -> None:
    """Raise what keeps the server from sending a file: Unreadable, NotOurs or DiskError."""
    if isinstance(file, Journal) and file.content.not_ours:
        raise file.content.not_ours
    if isinstance(file, BatchFile):
        dlq_file.check_header(file.entry.name, facts)
        dlq.may_go_to(facts["bucket"])
        if file.entry.area == QUARANTINE:
            file.batch()  # why it is there is written nowhere: find it out again


def _print_text(described: Iterator[dict[str, Any]], totals: Totals, listed: int) -> None:
    if listed:
        _print_row("AREA", "FROM", "AGE", "EVENTS", "SIZE", "BUCKET", "FILE", "WHY")
    for facts in described:
        aside = f" ({facts['set_aside']})" if "set_aside" in facts else ""
        why = f"{facts['reason'] or '-'}{aside}{_OWNER[facts['owner_alive']]}"
        if facts["error"]:
            why += f": {facts['error']}"
        _print_row(
            facts["area"],
            "due" if facts["due"] else (facts["slot"] or "-")[:_HOUR_CHARS],
            age(facts["age_seconds"]),
            f"{facts['events']:,}",
            size(facts["size_bytes"]),
            facts["bucket"] or "-",
            facts["file"],
            why,
        )
    left_out = totals.files - listed
    more = f"; the {left_out:,} youngest files are not listed" if left_out > 0 else ""
    say(f"total: {counted(totals.files, totals.events)}, {size(totals.size_bytes)}{more}")


def _print_row(*cells: str) -> None:
    """Print a line; on a terminal, which is too narrow for it, three."""
    *short, file, why = cells
    line = _COLUMNS.format(*short)
    if sys.stdout.isatty():
        say(line, f"  {file}", f"  {why}")
    else:
        say(f"{line}  {file}  {why}")


def age(seconds: float) -> str:
    """Return a duration in its two largest units."""
    minutes, seconds = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def size(size_bytes: float) -> str:
    """Return a size with a unit."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size_bytes /= 1024
        if size_bytes < 1024:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1024:.1f} TiB"
