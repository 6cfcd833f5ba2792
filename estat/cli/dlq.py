"""List, check, replay, delete or export what waits in DLQ_DIR.

ls, show, verify and export only read, journals too, also while the server
runs. replay deletes a file after it is stored, rm with --yes; each locks the
file first, neither works beside a running server unless told so, and neither
touches a journal. Exit status: 0 if all went well, 1 if a file is bad, failed
or was left alone, 2 for usage and file errors, 130 after Ctrl-C.

Example: estat dlq ls --dlq /var/lib/estat/dlq
"""

import argparse
import os
import re
from collections.abc import Callable
from typing import Any

from estat.cli import dlq_ls, dlq_read, dlq_replay
from estat.cli.arguments import add_command, add_number, argument, positive_number
from estat.cli.dlq_files import (
    add_files,
    add_while_running,
    counted,
    open_queue,
    refuse_beside_server,
    relative,
    select_files,
    total_events,
)
from estat.cli.output import say
from estat.config import parsers
from estat.disk import dlq_dir
from estat.disk.dlq import Claim, DeadLetterQueue
from estat.errors import DiskError, LaterVersion, Unreadable

#: What a subcommand does: it returns the exit code.
Subcommand = Callable[[DeadLetterQueue, argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the subcommands."""
    parser.set_defaults(dlq=None)
    _add_directory(parser)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_readers(commands)
    _add_takers(commands)


def _add_readers(commands: Any) -> None:
    """Register what only reads."""
    ls = _add(commands, "ls", dlq_ls.ls)
    ls.add_argument("--json", action="store_true", help="print one JSON document")
    add_number(ls, "--limit", None, "list only the N oldest files")

    show = _add(commands, "show", dlq_read.show)
    add_files(show, required=True)
    add_number(show, "--events", 3, "print N events", low=0)
    show.add_argument("--all", action="store_true", help="print all events")

    add_files(_add(commands, "verify", dlq_read.verify), required=False)

    export = _add(commands, "export", dlq_read.export)
    add_files(export, required=False)
    export.add_argument("--to", required=True, metavar="DIR", help="copy to DIR, made if missing")
    export.add_argument("--events", action="store_true", help="copy only the events, as JSON lines")


def _add_takers(commands: Any) -> None:
    """Register what takes files out of the queue."""
    replay = _add(commands, "replay", dlq_replay.replay)
    add_files(replay, required=False)
    replay.add_argument("--dry-run", action="store_true", help="only tell what would go where")
    rate = positive_number("a number of files a second, e.g. 5 or 0.5", unit="/s")
    replay.add_argument("--rate", type=rate, metavar="N", help="send at most N files a second")
    text = "let files go to DIR, besides the buckets that the settings name; repeatable"
    directory = re.compile("file:/.*")
    also = argument(parsers.pattern(directory), "a directory, e.g. file:/var/lib/estat/store")
    replay.add_argument(
        "--also", type=also, action="append", default=[], metavar="file:DIR", help=text
    )
    add_while_running(replay)

    rm = _add(commands, "rm", _rm)
    add_files(rm, required=True)
    rm.add_argument("--yes", action="store_true", help="delete; without it nothing is deleted")
    add_while_running(rm)


def _add(commands: Any, name: str, command: Subcommand) -> argparse.ArgumentParser:
    """Register a subcommand."""
    parser = add_command(commands, name, run, command.__doc__)
    parser.set_defaults(command=command)
    _add_directory(parser)
    return parser


def _add_directory(parser: argparse.ArgumentParser) -> None:
    """Register --dlq, which may stand before and behind a subcommand's name."""
    # no default: that behind the name would win over what was given before it
    text = "work on DIR [the setting DLQ_DIR]"
    parser.add_argument("--dlq", metavar="DIR", default=argparse.SUPPRESS, help=text)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return the exit code."""
    dlq = open_queue(args)
    command: Subcommand = args.command
    # a replay needs more than the directory
    with dlq_dir.acting_as_owner(dlq.root, command is not dlq_replay.replay):
        return command(dlq, args)


def _rm(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Delete files and their events.

    Each under its lock: nobody is sending it at that moment. Exit status: 1 if
    one is still there, as all are without --yes.

    Example: estat dlq rm FILE --yes
    """
    entries = select_files(dlq, args.files)
    if not args.yes:
        for entry in entries:
            say(f"would delete {relative(dlq, entry)} ({counted(1, entry.events)})")
        lost = counted(len(entries), total_events(entries))
        say(f"would lose {lost}; nothing was deleted: say --yes to do it")
        return 1
    dlq_dir.owner_warnings(args.dlq)  # raises DiskError if anybody may have made it
    refuse_beside_server(dlq, args.while_running)
    deleted = []
    left = 0
    for entry in entries:
        try:
            claim = dlq.claim(entry)
            if claim:
                with claim:
                    _delete(claim)
                deleted.append(entry)
            elif os.path.lexists(entry.path):
                say(f"in use, not deleted: {relative(dlq, entry)}")
                left += 1
        except LaterVersion as exc:
            say(f"not deleted: {relative(dlq, entry)}: {exc}, which deletes it")
            left += 1
        except DiskError as exc:
            say(f"not deleted: {exc}")
            left += 1
    say(f"deleted {counted(len(deleted), total_events(deleted))}; not deleted: {left}")
    return 1 if left else 0


def _delete(claim: Claim) -> None:
    """Delete a file, whatever it is. Raises LaterVersion for what nobody here can know."""
    try:
        claim.entry.read_header()
    except LaterVersion:
        raise
    except Unreadable:
        pass
    claim.remove()
