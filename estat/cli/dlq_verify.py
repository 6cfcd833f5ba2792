"""``estat dlq verify``: reads files whole and finds what is wrong with them.

More than the server asks for before it uploads a file: also the lines themselves,
one by one, and the journals' groups. Reads only, and needs no lock.
"""

import argparse
from functools import partial
from typing import Any

from estat.audit.dlq_reader import DAMAGED_RANGE, BatchFile, DamagedRange, DlqFile, Journal, gunzip
from estat.cli.dlq_files import Sums, counted, each, select, tell_of_others
from estat.disk import dlq_file
from estat.disk.dlq import DeadLetterQueue
from estat.errors import Unreadable
from estat.events import ids, json_text

#: The reason of a file that was a journal; nothing else may lack ids in its middle.
RECOVERED = "recovered"


def verify(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Print a line for each bad file, then a summary; return 1 if there was one."""
    entries = select(dlq, args.files)
    work = partial(_verify, dlq)
    sums = each(dlq, entries, work, "bad  ", lambda sums: f"{sums.done} good, {sums.failed} bad")
    bad = sums.failed
    if not args.files:
        bad += tell_of_others(dlq)
    print(f"good: {counted(sums.done, sums.events)}; bad: {bad}")
    return 1 if bad else 0


def _verify(dlq: DeadLetterQueue, file: DlqFile, sums: Sums) -> None:
    """Add a good file. Raises Gone, Unreadable and DiskError."""
    data = file.data
    match file:
        case Journal():
            events = examine_journal(file)
        case DamagedRange():
            raise Unreadable(DAMAGED_RANGE)
        case BatchFile():
            events = examine(file.entry.name, data)
            dlq.may_go_to(dlq_file.read(file.entry.name, data).bucket)
    sums.add(events)


def examine(name: str, data: bytes) -> int:
    """Return the number of events of a file's content. Raises Unreadable with what is wrong."""
    batch = dlq_file.unpack(data)
    lines = gunzip(batch.payload)
    if not batch.events:
        _parse(lines, "the stream's record")
        return 0
    if dlq_file.parse_name(name).events != batch.events:
        raise Unreadable(f"its name does not tell its {batch.events} events")
    rows = lines.split(b"\n")
    if rows.pop():
        raise Unreadable("its last line is cut off")
    if len(rows) != batch.events:
        raise Unreadable(f"{len(rows)} lines of {batch.events}")
    missing = batch.last - batch.first + 1 - batch.events
    # what a damaged journal has lost lies between its first and its last event
    if missing and (missing < 0 or _reason(data) != RECOVERED):
        raise Unreadable(f"its ids {batch.first} to {batch.last} are not {batch.events}")
    _check_ids(rows, batch.stream, batch.first, batch.last)
    return batch.events


def examine_journal(read: Journal) -> int:
    """Return the number of events of a journal. Raises Unreadable with what is wrong.

    A last group that is cut off is none: it was never acknowledged, or is being written.
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
        rows = read.data[group.start : group.end].split(b"\n")[:-1]
        _check_ids(rows, header.stream, following, following + group.events - 1)
        following += group.events
    if read.content.sealed and read.content.following != following:
        raise Unreadable(f"its seal ends before {read.content.following} in place of {following}")
    return read.events


def _check_ids(rows: list[bytes], stream: str, first: int, last: int) -> None:
    """Raise Unreadable if the ids of lines do not increase from the first to the last."""
    numbers = [first - 1]
    for row in rows:
        previous = f"{stream}-{numbers[-1]}"
        event = _parse(row, f"the line after {previous}")
        text = event.get("id") if isinstance(event, dict) else None
        found = ids.event_id(str(text))
        if not found or found.stream != stream or not numbers[-1] < found.number <= last:
            raise Unreadable(f"id {text!r} after {previous}")
        numbers.append(found.number)
    if numbers[1] != first or numbers[-1] != last:
        raise Unreadable(f"its ids are not {first} to {last}")


def _reason(data: bytes) -> Any:
    return dlq_file.read_header(data).get("reason")


def _parse(text: bytes, what: str) -> Any:
    try:
        return json_text.parse(text)
    except ValueError as exc:
        raise Unreadable(f"{what} is not JSON: {exc}") from exc
