"""``estat dlq verify``: reads files whole and finds what is wrong with them.

More than the server asks for before it uploads a file: also the lines themselves,
one by one. Reads only, and needs no lock.
"""

import argparse
import sys
from typing import Any

from estat import dlq_file, encoder, event
from estat.cli.dlq_files import content, counted, printable, relative, select
from estat.cli.progress import ProgressBar
from estat.dlq import DeadLetterQueue
from estat.errors import DiskError, Unreadable


def verify(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Print a line for each bad file, then a summary; return 1 if there was one."""
    entries = select(dlq, args.files)
    bar = ProgressBar(sys.stderr, len(entries))
    good = events = bad = 0
    for number, entry in enumerate(entries):
        bar.update(number, lambda good=good, bad=bad: f"{good} good, {bad} bad")  # type: ignore[misc]
        try:
            data = content(entry)
            if data is None:
                continue  # stored meanwhile, or moved
            events += examine(entry.name, data)
            good += 1
        except (Unreadable, DiskError) as exc:
            bar.close()
            print(f"bad   {relative(dlq, entry)}: {printable(str(exc))}")
            bad += 1
    bar.close()
    print(f"good: {counted(good, events)}; bad: {bad}")
    return 1 if bad else 0


def examine(name: str, data: bytes) -> int:
    """Return the number of events of a file's content. Raises Unreadable with what is wrong."""
    batch = dlq_file.unpack(data)
    try:
        lines = encoder.gunzip(batch.payload)
    except ValueError as exc:
        raise Unreadable(str(exc)) from exc
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
    if batch.last - batch.first + 1 != batch.events:
        raise Unreadable(f"its ids {batch.first} to {batch.last} are not {batch.events}")
    for number, row in enumerate(rows, batch.first):
        expected = f"{batch.stream}-{number}"
        value = _parse(row, f"the line of id {expected}")
        found = value.get("id") if isinstance(value, dict) else None
        if found != expected:
            raise Unreadable(f"id {found!r} in place of {expected!r}")
    return batch.events


def _parse(text: bytes, what: str) -> Any:
    try:
        return event.parse(text.decode())
    except ValueError as exc:
        raise Unreadable(f"{what} is not JSON: {exc}") from exc
