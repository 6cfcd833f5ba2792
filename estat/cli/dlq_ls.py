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
from dataclasses import replace
from typing import Any, NamedTuple

from estat.audit import dlq_reader
from estat.audit.dlq_reader import BatchFile, DlqFile, Gone, Journal
from estat.cli.dlq_files import age, counted, size, tell_of_others
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
    size_bytes: int
    #: What is known of a journal, which had to be read.
    facts: dict[str, Any] | None = None


def ls(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """List the files, the oldest batch first.

    A line for each: where it is, when it is due, how old it is, what it holds,
    and why it is there.

    Example: estat dlq ls --limit 20
    """
    now = time.time()
    seen: list[_Seen] = []
    for entry in dlq_reader.every(dlq.root):
        with contextlib.suppress(Gone):
            seen.append(_seen(entry))
    events = sum(found.entry.events for found in seen)
    totals = Totals(len(seen), events, sum(found.size_bytes for found in seen))
    seen.sort(key=lambda found: (found.opened, found.entry.name))
    listed = seen[: args.limit]
    described = (facts for found in listed if (facts := _describe(dlq, found, now)))
    if args.json:
        _print_json(described, totals)
    else:
        _print_text(described, totals, len(listed))
        tell_of_others(dlq)
    return 0


def _seen(entry: Entry) -> _Seen:
    """Return a file by its name and size, a journal by its content. Raises Gone, and DiskError."""
    file = dlq_reader.found(entry)
    facts = None
    if isinstance(file, Journal):
        try:
            facts = file.facts() | {"error": file.problem}
            if file.content.not_ours:
                facts = _fault(file.content.not_ours) | facts | {"reason": _SET_ASIDE}
            return _Seen(file.opened, replace(entry, events=file.events), len(file.data), facts)
        except (NotOurs, DiskError) as exc:  # too large to be one of ours, say
            facts = _fault(exc) | {"owner_alive": file.is_owned}
    with dlq_reader.reading(entry):
        status = os.stat(entry.path, follow_symlinks=False)
    opened = status.st_mtime if entry.opened is None else entry.opened
    return _Seen(opened, entry, status.st_size, facts)


def _describe(dlq: DeadLetterQueue, found: _Seen, now: float) -> dict[str, Any] | None:
    """Return what is printed about a file; None if it is gone."""
    entry = found.entry
    try:
        facts = found.facts or _facts(dlq, dlq_reader.found(entry))
    except Gone:
        return None
    is_journal = dlq_reader.is_journal(entry)
    slot = None if is_journal else entry.slot or None
    aside = {"set_aside": facts["set_aside"]} if "set_aside" in facts else {}
    return aside | {
        "area": entry.area,
        "slot": slot,
        "due": slot is not None and is_due(slot, now),
        "opened": found.opened,
        "age_seconds": round(max(0.0, now - found.opened), 3),
        "events": entry.events,
        "size_bytes": found.size_bytes,
        "bucket": facts.get("bucket"),
        "key": facts.get("key"),
        "stream": stream_of(entry.slot) if is_journal else facts.get("stream"),
        "owner_alive": facts.get("owner_alive") if is_journal else None,
        "file": os.path.join(entry.slot, entry.name) if is_journal else entry.name,
        "path": os.path.relpath(entry.path, dlq.root),
        "reason": facts.get("reason"),
        "error": hidden(facts.get("error") or "") or None,
    }


def _facts(dlq: DeadLetterQueue, file: DlqFile) -> dict[str, Any]:
    """Return what a file's header tells, with its reason and error. Raises Gone."""
    facts: dict[str, Any] = {}
    try:
        facts = file.facts()
        if isinstance(file, BatchFile):
            dlq_file.check_header(file.entry.name, facts)
            dlq.may_go_to(facts["bucket"])
            if file.entry.area == QUARANTINE:
                file.batch()  # why it is there is written nowhere: find it out again
    except (Unreadable, DiskError) as exc:
        # a file that this server did not write may hold a value that is no text
        facts = {name: value for name, value in facts.items() if isinstance(value, str)}
        return facts | _fault(exc)
    return facts


def _fault(error: Unreadable | DiskError) -> dict[str, str]:
    """Return why the server could not send a file, with the label of dlq_events_set_aside."""
    if isinstance(error, NotOurs):
        return {"reason": _SET_ASIDE, "error": str(error), "set_aside": error.reason}
    reason = "unreadable" if isinstance(error, Unreadable) else "not read"
    return {"reason": reason, "error": str(error)}


def _print_text(described: Iterator[dict[str, Any]], totals: Totals, listed: int) -> None:
    if listed:
        _print_row("AREA", "FROM", "AGE", "EVENTS", "SIZE", "BUCKET", "FILE", "WHY")
    for facts in described:
        aside = f" ({facts['set_aside']})" if "set_aside" in facts else ""
        why = f"{facts['reason']}{aside}{_OWNER[facts['owner_alive']]}"
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


def _print_json(described: Iterator[dict[str, Any]], totals: Totals) -> None:
    """Print one JSON document, a file a line, without holding all of it."""
    before = '{"files": [\n'
    for facts in described:
        say_json(facts, before, after="")
        before = ",\n"
    before = before if before.startswith("{") else "\n"
    say_json(totals._asdict(), f'{before}], "total": ', "}\n")
