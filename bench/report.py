"""The report in Markdown: what was measured, tables of what was found, and targets for it."""

import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench import BenchError, machine


class Target(NamedTuple):
    """What a figure may be at most."""

    what: str
    most: float
    unit: str = ""
    digits: int = 2

    def met(self, found: float) -> bool:
        """Tell whether a figure is within the target."""
        return found <= self.most

    def line(self, name: str, found: float) -> str:
        """Say what was found of whom, and what it means."""
        digits = self.digits
        # 1.5004 must not read as 1.50 where that would be within
        while self.met(round(found, digits)) != self.met(found):
            digits += 1
        return (
            f"- Target: {self.what} at most {self.most:.4g}{self.unit}. "
            f"{name}: {found:,.{digits}f}{self.unit}, {'met' if self.met(found) else '**not met**'}"
        )


def progress(line: str) -> None:
    """Tell the person who waits for the report what is going on."""
    print(line, file=sys.stderr, flush=True)


def describe(directory: str, *facts: str) -> None:
    """Print what was measured and how, and what the DLQ in ``directory`` was on."""
    found = machine.file_system(directory)
    warning = "; **that is memory: a sync costs nothing there**" if found.in_memory else ""
    for fact in (*facts, f"DLQ_DIR: {found.kind} on {found.device}{warning}"):
        print(f"- {fact}")
    print()


def table(titles: str, rows: Iterable[Sequence[str]], texts: int = 1) -> None:
    """Print a table; ``titles`` has bars between them, and the first columns hold texts."""
    columns = titles.count("|") + 1
    rules = ["---" if number < texts else "--:" for number in range(columns)]
    print(f"| {titles} |\n|{'|'.join(rules)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def left_out(name: str, error: BenchError) -> str:
    """Say at once why a row will be missing, and return it for the end."""
    line = f"left out: {name}: {error}"
    progress(line)
    return line


def spread(values: Iterable[float], digits: int) -> str:
    """Return the median, and between what the values lie."""
    found = sorted(values)
    low, high = found[0], found[-1]
    return f"{statistics.median(found):,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def ratio(values: Sequence[float], reference: Sequence[float]) -> str:
    """Divide the medians; the spread is over the pairs of one round, which drift together."""
    of_medians = statistics.median(values) / statistics.median(reference)
    pairs = [a / b for a, b in zip(values, reference, strict=True)]
    return f"{of_medians:.2f} ({min(pairs):.2f}-{max(pairs):.2f})"
