"""The ``estat`` command: parses arguments and runs a subcommand."""

import argparse
import os
import signal
import sys
from importlib import import_module

from estat import __version__, build
from estat.cli import output
from estat.cli.arguments import add_command
from estat.cli.output import CommandError
from estat.errors import EstatError
from estat.text import safe

#: Each is a module beside this one: its docstring is its help, ``run`` runs it, and
#: ``add_arguments`` registers its arguments, if it has any.
_COMMANDS = ("init", "serve", "demo", "check", "health", "send", "dlq", "audit")

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


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments; ``run`` is the command's function. Exits 2 with the command's usage."""
    parser = argparse.ArgumentParser(
        prog="estat",
        usage=f"estat [-h] [--version] {{{','.join(_COMMANDS)}}} ...",
        description="Takes events over HTTP and puts every accepted one into S3.",
        epilog="estat COMMAND --help tells more, with an example.",
    )
    parser.add_argument("--version", action="version", version=f"estat {__version__} ({build()})")
    commands = parser.add_subparsers(
        title="commands", prog="estat", dest="name", required=True, metavar="COMMAND"
    )
    # no other command's imports: health runs every few seconds
    for name in argv[:1] if argv[:1] and argv[0] in _COMMANDS else _COMMANDS:
        module = import_module(f"estat.cli.{name}")
        command = add_command(commands, name, module.run, module.__doc__)
        if hasattr(module, "add_arguments"):
            module.add_arguments(command)
    args, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse itself would print the usage of all commands
        args.parser.error(f"unrecognized arguments: {safe(' '.join(unknown))}")
    return args


def _run(argv: list[str] | None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
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
