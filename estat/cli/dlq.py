"""``estat dlq``: what lies in the dead letter queue, and what a person may do with it.

``ls``, ``show``, ``verify`` and ``export`` only read, journals too, also while the
server runs. ``replay`` deletes a file after it is stored, ``rm`` with ``--yes``; each
takes the file's lock first, neither works beside a running server unless told so, and
neither touches a journal.
"""

import argparse
import os
from typing import Any

from estat.cli import dlq_export, dlq_ls, dlq_replay, dlq_show, dlq_verify
from estat.cli.arguments import positive_number, whole_number
from estat.cli.dlq_files import (
    add_files,
    add_while_running,
    counted,
    open_queue,
    printable,
    refuse_beside_server,
    relative,
    select_files,
    total_events,
)
from estat.disk import dlq_dir
from estat.disk.dlq import DeadLetterQueue
from estat.errors import DiskError


def add_parser(subparsers: Any) -> None:
    """Register the command and its subcommands."""
    parser = subparsers.add_parser(
        "dlq",
        help="list, check, replay, delete or export what waits in the DLQ directory",
        description="Looks into the dead letter queue and works on it by hand. Exit status: 0 if "
        "all went well, 1 if a file is bad, failed or was left alone, 2 for usage and "
        "file errors, 130 after Ctrl-C.",
    )
    parser.add_argument("--dlq", metavar="DIR", help="the directory; default: the setting DLQ_DIR")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    # also behind the subcommand's name; without a default there, which would win
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--dlq", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for add in (_add_ls, _add_show, _add_verify, _add_replay, _add_rm, _add_export):
        add(commands, shared)


def _add_ls(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "ls", parents=[shared], help="list the files, the oldest batch first"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--limit", type=whole_number(1), metavar="N", help="list the N oldest only")
    parser.set_defaults(run=run, command=dlq_ls.ls)


def _add_show(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "show", parents=[shared], help="print a file's header and first events as JSON lines"
    )
    add_files(parser, required=True)
    parser.add_argument(
        "--events", type=whole_number(0), default=3, metavar="N", help="events to print [3]"
    )
    parser.add_argument("--all", action="store_true", help="print all events")
    parser.set_defaults(run=run, command=dlq_show.show)


def _add_verify(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "verify", parents=[shared], help="read files whole and find what is wrong with them"
    )
    add_files(parser, required=False)
    parser.set_defaults(run=run, command=dlq_verify.verify)


def _add_replay(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "replay",
        parents=[shared],
        help="store files now, exactly once, and delete each after that",
        description="Stores files now, also those whose time has not come, the oldest batch "
        "first, each under its own bucket and key. Uses the server's settings. For a stopped "
        "server, or a DLQ copied from a lost host: a running server replays by itself.",
    )
    add_files(parser, required=False)
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be sent where")
    parser.add_argument(
        "--rate",
        type=positive_number("a number of files a second, as 5 or 0.5", unit="/s"),
        metavar="N",
        help="files a second, at most",
    )
    parser.add_argument(
        "--also",
        type=_directory,
        action="append",
        default=[],
        metavar="file:DIR",
        help="a directory that files may go to besides those that the settings name; repeatable",
    )
    add_while_running(parser)
    parser.set_defaults(run=run, command=dlq_replay.replay)


def _add_rm(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("rm", parents=[shared], help="delete files and their events")
    add_files(parser, required=True)
    parser.add_argument("--yes", action="store_true", help="delete; without it nothing is deleted")
    add_while_running(parser)
    parser.set_defaults(run=run, command=_rm)


def _add_export(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("export", parents=[shared], help="copy files to another directory")
    add_files(parser, required=False)
    parser.add_argument("--to", required=True, metavar="DIR", help="where to; made if missing")
    parser.add_argument("--events", action="store_true", help="their events only, as JSON lines")
    parser.set_defaults(run=run, command=dlq_export.export)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return the exit code."""
    code: int = args.command(open_queue(args.dlq), args)
    return code


def _rm(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Delete the files, each under its lock: nobody is sending it at that moment.

    Returns 1 if one is still there, as all are without ``--yes``.
    """
    entries = select_files(dlq, args.files)
    if not args.yes:
        for entry in entries:
            print(f"would delete {relative(dlq, entry)} ({counted(1, entry.events)})")
        lost = counted(len(entries), total_events(entries))
        print(f"would lose {lost}; nothing was deleted: say --yes to do it")
        return 1
    dlq_dir.owner_warnings(dlq.root)  # raises DiskError if anybody may have made it
    refuse_beside_server(dlq, args.while_running)
    deleted = []
    left = 0
    for entry in entries:
        try:
            claim = dlq.claim(entry)
            if claim:
                with claim:
                    claim.remove()
                deleted.append(entry)
            elif os.path.lexists(entry.path):
                print(f"in use, not deleted: {relative(dlq, entry)}")
                left += 1
        except DiskError as exc:
            print(f"not deleted: {printable(str(exc))}")
            left += 1
    print(f"deleted {counted(len(deleted), total_events(deleted))}; not deleted: {left}")
    return 1 if left else 0


def _directory(text: str) -> str:
    if not text.startswith("file:/"):
        raise argparse.ArgumentTypeError(f"{text!r} is no directory, as file:/var/lib/estat/store")
    return text
