"""How commands and their arguments are registered with argparse.

The rules for values are those of the settings (``config.parsers``); argparse wants another error.
"""

import argparse
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from estat.config import parsers
from estat.text import hidden

T = TypeVar("T")


def add_command(
    commands: Any, name: str, run: Callable[..., int], doc: str | None
) -> argparse.ArgumentParser:
    """Register a command whose docstring is its help, as it stands there.

    The first line tells in a list what the command does; the last one is an example to type.
    """
    text = inspect.cleandoc(doc or "")  # none with python -OO
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.partition(".\n")[0],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def argument(parse: Callable[[str], T], valid: str) -> Callable[[str], T]:
    """Return ``parse`` as a type for argparse; ``valid`` says what it takes.

    The type raises ArgumentTypeError where ``parse`` raises ValueError.
    """

    def value(text: str) -> T:
        try:
            return parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{hidden(text)!r} is not {valid}") from exc

    return value


def add_number(
    parser: argparse.ArgumentParser,
    name: str,
    default: int | None,
    text: str,
    low: int = 1,
    high: float = math.inf,
) -> None:
    """Register an option that is a whole number; its help is ``text`` and the default."""
    bounds = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
    number = argument(parsers.between(parsers.whole, low, high), f"a whole number {bounds}")
    shown = "" if default is None else f" [{default}]"
    parser.add_argument(name, type=number, default=default, metavar="N", help=text + shown)


def positive_number(
    what: str, high: float = sys.float_info.max, unit: str = ""
) -> Callable[[str], float]:
    """Return the type of ``what``: a number above 0, at most ``high``, with or without a unit."""

    def number(text: str) -> float:
        return float(text.removesuffix(unit))

    return argument(parsers.between(number, sys.float_info.min, high), what)
