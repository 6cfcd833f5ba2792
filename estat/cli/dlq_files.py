"""Which files of a DLQ directory a command means, and how they are named to people.

Reads only. The server may work on the directory at the same time, so a file that
was found may be gone when it is opened; that is no error. Journals count as files,
except where a command deletes what it has worked on: they are the server's.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable

from estat.audit import dlq_reader
from estat.audit.dlq_reader import DlqFile, Gone
from estat.cli import output
from estat.cli.output import CommandError, say
from estat.disk import dlq_dir, files
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.disk.server_directory import passed_over, queues
from estat.errors import EstatError


def select(dlq: DeadLetterQueue, wanted: list[str]) -> list[Entry]:
    """Return the wanted files, journals too, by default all, the oldest first.

    A file is wanted by its name, or by its path from here or within the DLQ; a journal also
    by its stream and name. Raises CommandError when there is no such file in the DLQ.
    """
    if not wanted:
        return sorted(dlq_reader.every(dlq.root), key=lambda entry: entry.age_key)
    names = {os.path.basename(given) for given in wanted}
    named = [entry for entry in dlq_reader.every(dlq.root) if entry.name in names]
    found: dict[Entry, None] = {}
    for given in wanted:
        path, end = os.path.realpath(given), f"/{given}"
        matches = [entry for entry in named if entry.path == path or entry.path.endswith(end)]
        if not matches:
            raise CommandError(f"{given}: no such file in {dlq.root}")
        found.update(dict.fromkeys(matches))
    return sorted(found, key=lambda entry: entry.age_key)


def select_files(dlq: DeadLetterQueue, wanted: list[str]) -> list[Entry]:
    """Return the wanted files of the DLQ itself, by default all, the oldest batch first.

    Raises CommandError when a journal is named, or there is no such file.
    """
    found = select(dlq, wanted)
    for entry in found:
        if wanted and dlq_reader.is_journal(entry):
            raise CommandError(
                f"{relative(dlq, entry)} is a journal: only the server works on it. What a dead "
                "process left there is recovered when a server starts on the directory"
            )
    return [entry for entry in found if not dlq_reader.is_journal(entry)]


class Outcomes:
    """Files and their events by what became of them."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    def add(self, outcome: str, events: int) -> None:
        """Count a file."""
        self.files[outcome] += 1
        self.events[outcome] += events

    def sum(self, outcome: str) -> str:
        """Return how many files and events had an outcome, as text."""
        return counted(self.files[outcome], self.events[outcome])


def each(
    dlq: DeadLetterQueue,
    entries: list[Entry],
    work: Callable[[DlqFile, Outcomes], None],
    failed: str,
) -> Outcomes:
    """Work on files one by one behind a progress bar; print a line for each that ``failed``.

    ``work`` counts the others. A file that is gone is left out: it was stored meanwhile, or moved.
    """
    outcomes = Outcomes()
    for number, entry in enumerate(entries):
        output.progress.update(
            number, len(entries), lambda: f"{outcomes.files[failed]} {failed.strip()}"
        )
        try:
            work(dlq_reader.found(entry), outcomes)
        except Gone:
            continue
        except EstatError as exc:
            say(f"{failed} {relative(dlq, entry)}: {exc}")
            outcomes.add(failed, entry.events)
    return outcomes


def check_may_take(dlq: DeadLetterQueue, args: argparse.Namespace) -> None:
    """Raise DiskError if anybody may have made the DLQ, CommandError while a server works on it.

    The server counts the files that it wrote and found. One that somebody else takes away
    counts as vanished, and the accounting ends with a loss. ``args.while_running`` allows that.
    """
    dlq_dir.owner_warnings(args.dlq)
    with files.disk_errors("open", dlq.root):
        if args.while_running or not any(map(dlq_reader.is_owned, queues(dlq.root))):
            return
    raise CommandError(
        f"a server is working on {dlq.root} (it holds a lock there): it replays the files by "
        "itself, and would count those that others take away as lost. Stop it first, or say "
        "--while-running",
        code=1,
    )


def tell_of_others(dlq: DeadLetterQueue) -> int:
    """Print what in the directory is not followed, and why; return how much that is."""
    told = passed_over(dlq.root)
    for path, (reason, why) in told.items():
        what = "not followed" if reason == "not_followed" else "left alone"
        say(f"{what} {os.path.relpath(path, dlq.root)}: {why}")
    return len(told)


def relative(dlq: DeadLetterQueue, entry: Entry) -> str:
    """Return a file's path within the DLQ."""
    return os.path.relpath(entry.path, dlq.root)


def counted(file_count: int, events: int) -> str:
    """Return a number of files and events as text."""
    return f"{_plural(file_count, 'file')}, {_plural(events, 'event')}"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
