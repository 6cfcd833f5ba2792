"""Types of the commands' arguments, for argparse."""

import argparse
import math
from collections.abc import Callable


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the type of a whole number that is at least ``low`` and at most ``high``."""
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"

    def number(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else -1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return value

    return number


def positive_number(what: str, high: float = math.inf, unit: str = "") -> Callable[[str], float]:
    """Return the type of ``what``: a number above 0, at most ``high``, with or without a unit."""

    def number(text: str) -> float:
        try:
            value = float(text.removesuffix(unit))
        except ValueError:
            value = math.nan
        if not 0 < value <= high or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return number
