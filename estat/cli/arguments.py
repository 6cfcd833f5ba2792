"""Types of the commands' arguments, for argparse.

The rules are those of the settings (``config.parsers``); argparse wants another error.
"""

import argparse
import math
import sys
from collections.abc import Callable
from typing import TypeVar

from estat.config import parsers
from estat.text import hidden

T = TypeVar("T")


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


def whole_number(low: int, high: float = math.inf) -> Callable[[str], float]:
    """Return the type of a whole number that is at least ``low`` and at most ``high``."""
    bounds = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
    return argument(parsers.between(parsers.whole, low, high), f"a whole number {bounds}")


def add_number(
    parser: argparse.ArgumentParser,
    name: str,
    default: int | None,
    text: str,
    low: int = 1,
    high: float = math.inf,
) -> None:
    """Register an option that is a whole number; its help is ``text`` and the default."""
    shown = "" if default is None else f" [{default}]"
    number = whole_number(low, high)
    parser.add_argument(name, type=number, default=default, metavar="N", help=text + shown)


def positive_number(
    what: str, high: float = sys.float_info.max, unit: str = ""
) -> Callable[[str], float]:
    """Return the type of ``what``: a number above 0, at most ``high``, with or without a unit."""

    def number(text: str) -> float:
        return float(text.removesuffix(unit))

    return argument(parsers.between(number, sys.float_info.min, high), what)
