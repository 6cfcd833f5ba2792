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

from estat.audit.dlq_reader import DlqFile, Gone
from estat.cli import dlq_ls, dlq_read, dlq_replay
from estat.cli.arguments import add_command, add_number, argument, positive_number
from estat.cli.dlq_files import Outcomes, check_may_take, counted, each, relative, select_files
from estat.cli.output import CommandError, say
from estat.config import loading, parsers
from estat.disk import dlq_dir
from estat.disk.dlq import DeadLetterQueue
from estat.errors import LaterVersion, SettingsError, Unreadable
from estat.stores import Stores

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
    _add_files(show, required=True)
    add_number(show, "--events", 3, "print N events", low=0)
    show.add_argument("--all", action="store_true", help="print all events")

    _add_files(_add(commands, "verify", dlq_read.verify), required=False)

    export = _add(commands, "export", dlq_read.export)
    _add_files(export, required=False)
    export.add_argument("--to", required=True, metavar="DIR", help="copy to DIR, made if missing")
    export.add_argument("--events", action="store_true", help="copy only the events, as JSON lines")


def _add_takers(commands: Any) -> None:
    """Register what takes files out of the queue."""
    replay = _add(commands, "replay", dlq_replay.replay)
    _add_files(replay, required=False)
    replay.add_argument("--dry-run", action="store_true", help="only tell what would go where")
    rate = positive_number("a number of files a second, e.g. 5 or 0.5", unit="/s")
    replay.add_argument("--rate", type=rate, metavar="N", help="send at most N files a second")
    text = "let files go to DIR, besides the buckets that the settings name; repeatable"
    directory = re.compile("file:/.*")
    also = argument(parsers.pattern(directory), "a directory, e.g. file:/var/lib/estat/store")
    replay.add_argument(
        "--also", type=also, action="append", default=[], metavar="file:DIR", help=text
    )
    _add_while_running(replay)

    rm = _add(commands, "rm", _rm)
    _add_files(rm, required=True)
    rm.add_argument("--yes", action="store_true", help="delete; without it nothing is deleted")
    _add_while_running(rm)


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


def _add_files(parser: Any, *, required: bool) -> None:
    """Register the FILE arguments."""
    parser.add_argument(
        "files",
        nargs="+" if required else "*",
        metavar="FILE",
        help="a file's name, as ls shows it, or its path" + ("" if required else "; default: all"),
    )


def _add_while_running(parser: Any) -> None:
    """Register the option that allows to take files away from a running server."""
    parser.add_argument(
        "--while-running",
        action="store_true",
        help="go on although a server works on the directory; it will count the files as lost",
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return the exit code."""
    dlq = open_queue(args)
    command: Subcommand = args.command
    # a replay needs more than the directory
    with dlq_dir.acting_as_owner(dlq.root, command is not dlq_replay.replay):
        return command(dlq, args)


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
        lost = counted(len(entries), sum(entry.events for entry in entries))
        say(f"would lose {lost}; nothing was deleted: say --yes to do it")
        return 1
    check_may_take(dlq, args)

    def delete(file: DlqFile, outcomes: Outcomes) -> None:
        claim = dlq.claim(file.entry)
        if claim is None:
            if os.path.lexists(file.entry.path):
                raise CommandError("in use")
            raise Gone
        with claim:
            try:
                claim.entry.read_header()
            except LaterVersion:  # nobody here can know what it is
                raise
            except Unreadable:
                pass
            claim.remove()
        outcomes.add("deleted", file.events)

    outcomes = each(dlq, entries, delete, "not deleted")
    left = outcomes.files["not deleted"]
    say(f"deleted {outcomes.sum('deleted')}; not deleted: {left}")
    return 1 if left else 0
