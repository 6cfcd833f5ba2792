"""The ``estat`` command: parses arguments and runs a subcommand."""

import argparse
import sys

from estat import __version__
from estat.cli import audit, check, demo, dlq, health, send, serve


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="estat", description="Takes events over HTTP and puts every accepted one into S3."
    )
    parser.add_argument("--version", action="version", version=f"estat {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (serve, demo, check, health, send, dlq, audit):
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
