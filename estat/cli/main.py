"""The ``estat`` command: parses arguments and runs a subcommand."""

import argparse
import os
import signal
import sys

from estat import __version__, build
from estat.cli import audit, check, demo, dlq, health, init, output, send, serve
from estat.cli.output import CommandError
from estat.errors import EstatError

#: What a shell shows for a program that SIGPIPE has ended.
_READER_GONE = 128 + signal.SIGPIPE


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # here, where its failure can still be handled
    except BrokenPipeError:
        # The reader of our output has gone, as head does. Python would try once more at its end
        # to write what is buffered, so that goes to nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return _READER_GONE


def _run(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="estat", description="Takes events over HTTP and puts every accepted one into S3."
    )
    parser.add_argument("--version", action="version", version=f"estat {__version__} ({build()})")
    subparsers = parser.add_subparsers(
        title="commands", dest="name", required=True, metavar="COMMAND"
    )
    for command in (init, serve, demo, check, health, send, dlq, audit):
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    name = "" if args.name == "serve" else args.name
    output.be_careful(name)
    try:
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except EstatError as exc:
        output.complain(name, exc)
        return exc.code if isinstance(exc, CommandError) else 2
    return code


if __name__ == "__main__":
    sys.exit(main())
