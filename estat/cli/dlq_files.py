"""Which files of a DLQ directory a command means, and how they are named to people.

Reads only. The server may work on the directory at the same time, so a file that
was found may be gone when it is opened; that is no error. Journals count as files,
except where a command deletes what it has worked on: they are the server's.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from estat.audit import dlq_reader
from estat.audit.dlq_reader import DlqFile, Gone
from estat.cli import output
from estat.cli.output import CommandError, say
from estat.config import loading
from estat.disk import files, server_directory
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.errors import DiskError, SettingsError, Unreadable
from estat.stores import Stores

_DAY, _HOUR, _MINUTE = 86400, 3600, 60


def open_queue(args: argparse.Namespace) -> DeadLetterQueue:
    """Return the DLQ in ``args.dlq``, or in DLQ_DIR, of all servers. Raises CommandError.

    With a directory no setting is needed: a DLQ that was copied from elsewhere can be
    looked at where no server is set up. Where one is, its settings tell which files it may send.
    """
    may_go_to: Callable[[str], object] = str
    try:
        settings = loading.load()
        args.dlq = args.dlq or settings.dlq_dir
        may_go_to = Stores(settings).check
    except SettingsError as exc:
        if args.dlq is None:
            raise CommandError(*exc.problems, "or name the directory with --dlq") from exc
    root = os.path.realpath(args.dlq)
    if not os.path.isdir(root):
        raise CommandError(f"{root}: no such directory")
    return DeadLetterQueue(root, may_go_to)


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


@dataclass(slots=True)
class Sums:
    """How many files a command has worked on, and how many it could not."""

    done: int = 0
    events: int = 0
    failed: int = 0

    def add(self, events: int) -> None:
        """Count a file that went well."""
        self.done += 1
        self.events += events


def each(
    dlq: DeadLetterQueue,
    entries: list[Entry],
    work: Callable[[DlqFile, Sums], None],
    failed: str,
    progress: Callable[[Sums], str],
) -> Sums:
    """Work on files one by one behind a progress bar; print a line for each that ``failed``.

    A file that is gone is left out: it was stored meanwhile, or moved.
    """
    sums = Sums()
    for number, entry in enumerate(entries):
        output.progress.update(number, len(entries), lambda: progress(sums))
        try:
            work(dlq_reader.found(entry), sums)
        except Gone:
            continue
        except (Unreadable, DiskError, FileExistsError) as exc:
            say(f"{failed} {relative(dlq, entry)}: {exc}")
            sums.failed += 1
    return sums


def refuse_beside_server(dlq: DeadLetterQueue, while_running: bool) -> None:
    """Raise CommandError while a server works on the DLQ, unless that was asked for.

    The server counts the files that it wrote and found. One that somebody else takes away
    counts as vanished, and the accounting ends with a loss.
    """
    with files.disk_errors("open", dlq.root):
        if while_running or not any(map(dlq_reader.is_owned, server_directory.queues(dlq.root))):
            return
    raise CommandError(
        f"a server is working on {dlq.root} (it holds a lock there): it replays the files by "
        "itself, and would count those that others take away as lost. Stop it first, or say "
        "--while-running",
        code=1,
    )


def tell_of_others(dlq: DeadLetterQueue) -> int:
    """Print what in the directory is not followed, and why; return how much that is."""
    told = server_directory.passed_over(dlq.root)
    for path, (reason, why) in told.items():
        what = "not followed" if reason == "not_followed" else "left alone"
        say(f"{what} {os.path.relpath(path, dlq.root)}: {why}")
    return len(told)


def add_files(parser: Any, *, required: bool) -> None:
    """Register the FILE arguments."""
    parser.add_argument(
        "files",
        nargs="+" if required else "*",
        metavar="FILE",
        help="a file's name, as ls shows it, or its path" + ("" if required else "; default: all"),
    )


def add_while_running(parser: Any) -> None:
    """Register the option that allows to take files away from a running server."""
    parser.add_argument(
        "--while-running",
        action="store_true",
        help="go on although a server works on the directory; it will count the files as lost",
    )


def relative(dlq: DeadLetterQueue, entry: Entry) -> str:
    """Return a file's path within the DLQ."""
    return os.path.relpath(entry.path, dlq.root)


def place(bucket: str, key: str) -> str:
    """Return where an object is, as a person would type it."""
    scheme = "" if bucket.startswith("file:") else "s3://"
    return f"{scheme}{bucket}/{key}"


def counted(file_count: int, events: int) -> str:
    """Return a number of files and events as text."""
    return f"{_plural(file_count, 'file')}, {_plural(events, 'event')}"


def total_events(entries: Iterable[Entry]) -> int:
    """Return the events of files, by their names."""
    return sum(entry.events for entry in entries)


def age(seconds: float) -> str:
    """Return a duration in its two largest units."""
    whole = max(0, int(seconds))
    if whole >= _DAY:
        return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"
    if whole >= _HOUR:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    return f"{whole}s"


def size(size_bytes: float) -> str:
    """Return a size with a unit."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size_bytes /= 1024
        if size_bytes < 1024:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1024:.1f} TiB"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
