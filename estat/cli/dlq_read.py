"""``estat dlq show``, ``verify`` and ``export``: read files, and need no lock.

``show`` prints what is known of a file and its first events as JSON lines: of a damaged one up
to the damage, of a journal also the groups behind it. ``verify`` asks for more than the server
does before it uploads a file: also the lines themselves, one by one, and the journals' groups.
``export`` copies files whole or as their events alone, and never removes or replaces anything.
Whole copies keep their area and slot, so the target is a DLQ directory itself: it can be listed,
verified and replayed, and a server that starts on it recovers its journals. Each copy is written
like a DLQ file: whole and synced, or not at all.
"""

import argparse
import io
import os
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any

from estat.audit import dlq_reader
from estat.audit.dlq_reader import (
    DAMAGED_RANGE,
    DamagedRange,
    DlqFile,
    Gone,
    Journal,
    gunzip,
    unzipped,
)
from estat.cli.dlq_files import Outcomes, each, relative, select, tell_of_others
from estat.cli.output import CommandError, complain, say, say_event, say_json
from estat.disk import dlq_dir, dlq_file, files, whole_file
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.errors import DiskError, Unreadable
from estat.events import ids, json_text

#: The reason of a file that was a journal; nothing else may lack ids in its middle.
RECOVERED = "recovered"

_ID_CHARS = 100  # of one that is none


def show(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Print a file's header and first events as JSON lines.

    Exit status: 1 if a file is damaged; what is before the damage is printed.

    Example: estat dlq show FILE --events 10
    """
    code = 0
    limit = None if args.all else args.events
    for entry in select(dlq, args.files):
        try:
            _show(dlq, entry, limit)
        except Gone as exc:
            problem = f"{relative(dlq, entry)} is gone: stored or moved meanwhile"
            raise CommandError(problem, code=1) from exc
        except (Unreadable, DiskError) as exc:
            complain("dlq", f"{relative(dlq, entry)}: {exc}")
            code = 1
    return code


def _show(dlq: DeadLetterQueue, entry: Entry, limit: int | None) -> None:
    """Print what one file holds. Raises Unreadable where it is damaged, Gone, and DiskError."""
    file = dlq_reader.found(entry)
    about = {
        "path": relative(dlq, entry),
        "area": entry.area,
        "slot": None if dlq_reader.is_journal(entry) else entry.slot or None,
        "size_bytes": len(file.data),
    }
    say_json(about | file.facts())
    for line in islice(file.lines(), limit):
        try:
            text = line.decode()
            json_text.parse(line)
        except ValueError:
            say_json({"not_json": line.decode(errors="replace")})
        else:
            say_event(text)
    if file.problem:
        raise Unreadable(file.problem)


def verify(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Read files whole and find what is wrong with them.

    Prints a line for each bad file, then a summary. Exit status: 1 if there
    was one.

    Example: estat dlq verify
    """
    entries = select(dlq, args.files)
    outcomes = each(dlq, entries, partial(_verify, dlq), "bad  ")
    bad = outcomes.files["bad  "]
    if not args.files:
        bad += tell_of_others(dlq)
    say(f"good: {outcomes.sum('good')}; bad: {bad}")
    return 1 if bad else 0


def _verify(dlq: DeadLetterQueue, file: DlqFile, outcomes: Outcomes) -> None:
    """Count a good file. Raises Gone, Unreadable and DiskError."""
    match file:
        case Journal():
            events = examine_journal(file)
        case DamagedRange():
            raise Unreadable(DAMAGED_RANGE)
        case _:
            events = examine(file.entry.name, file.data)
            dlq.may_go_to(dlq_file.read(file.entry.name, file.data).bucket)
    outcomes.add("good", events)


def examine(name: str, data: bytes) -> int:
    """Return the number of events of a file's content. Raises Unreadable with what is wrong."""
    batch = dlq_file.unpack(data)
    if not batch.events:
        _parse(gunzip(batch.payload), "the stream's record")
        return 0
    if dlq_file.parse_name(name).events != batch.events:
        raise Unreadable(f"its name does not tell its {batch.events} events")
    missing = batch.last - batch.first + 1 - batch.events
    # what a damaged journal has lost lies between its first and its last event
    recovered = dlq_file.read_header(data).get("reason") == RECOVERED
    if missing and (missing < 0 or not recovered):
        raise Unreadable(f"its ids {batch.first} to {batch.last} are not {batch.events}")
    _check_ids(unzipped(batch.payload), batch.stream, batch.first, batch.last, batch.events)
    return batch.events


def examine_journal(read: Journal) -> int:
    """Return the number of events of a journal. Raises Unreadable with what is wrong.

    A last group that is cut off does not count: nobody got an answer, or it is being written.
    """
    if read.problem:
        raise Unreadable(read.problem)
    header, groups = read.content.header, read.content.groups
    if header is None:
        return 0  # its first line is being written, or was when its process died
    if header.stream != read.stream:
        raise Unreadable(f"its events are of the stream {header.stream}")
    following = header.first
    for group in groups:
        rows = io.BytesIO(read.data[group.start : group.end])
        last = following + group.events - 1
        _check_ids(rows, header.stream, following, last, group.events)
        following = last + 1
    return read.events


def _check_ids(rows: Iterable[bytes], stream: str, first: int, last: int, events: int) -> None:
    """Raise Unreadable if the ids of whole lines do not increase from the first to the last."""
    count, number, begins = 0, first - 1, first
    for row in rows:
        count += 1
        previous = f"{stream}-{number}"
        if not row.endswith(b"\n"):
            raise Unreadable("its last line is cut off")
        event = _parse(row, f"the line after {previous}")
        text = event.get("id") if isinstance(event, dict) else None
        found = ids.event_id(str(text))
        if not found or found.stream != stream or not number < found.number <= last:
            raise Unreadable(f"id {repr(text)[:_ID_CHARS]} after {previous}")
        number = found.number
        begins = number if count == 1 else begins
    if count != events:
        raise Unreadable(f"{count} lines of {events}")
    if (begins, number) != (first, last):
        raise Unreadable(f"its ids are not {first} to {last}")


def _parse(text: bytes, what: str) -> Any:
    try:
        return json_text.parse(text)
    except ValueError as exc:
        raise Unreadable(f"{what} is not JSON: {exc}") from exc


def export(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Copy files to another directory.

    Of a journal that is still being written the copy has what is there now.
    Exit status: 1 if a file could not be copied.

    Example: estat dlq export --to /mnt/rescue/dlq
    """
    target = os.path.realpath(args.to)
    if os.path.commonpath([dlq.root, target]) == dlq.root:
        raise CommandError(f"--to {target} lies within the DLQ: the server would take the copies")

    def copy(file: DlqFile, outcomes: Outcomes) -> None:
        name, data = relative(dlq, file.entry), file.data
        if args.events:
            name, data = _name(file), file.good_lines()
        if data or not args.events:
            _write(target, name, data)
            outcomes.add("exported", file.events)
        if args.events and file.problem:
            raise Unreadable(f"{file.problem}; the rest is exported" if data else file.problem)

    entries = select(dlq, args.files)
    outcomes = each(dlq, entries, copy, "not exported")
    failed = outcomes.files["not exported"]
    say(f"exported to {target}: {outcomes.sum('exported')}; not exported: {failed}")
    return 1 if failed else 0


def _name(file: DlqFile) -> str:
    """Return the name of a file's events; that of a damaged range says what it is."""
    if isinstance(file, Journal):
        return f"{file.name}.{file.events}.jsonl"
    suffix = ".damaged" if isinstance(file, DamagedRange) else ".jsonl"
    return file.entry.name.removesuffix(ids.SUFFIX) + suffix


def _write(target: str, name: str, data: bytes) -> None:
    """Write a copy, unless the same bytes are there already.

    Raises CommandError if another file is there, and DiskError.
    """
    path = os.path.join(target, name)
    # what root copies from a user's directory need not be written where that user may
    with dlq_dir.acting_as_owner(target):
        is_new = whole_file.write_new(path, [data], files.BY_UMASK)
        if not is_new and files.read_whole(path) != data:
            raise CommandError(f"{path} is there already, and different")
