"""Sets of ids as spans: a stream of any length costs its objects, not its events.

A rule without I/O. Lists of spans are in order and apart, as ``union`` returns them.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """Consecutive ids, both ends included."""

    first: int
    last: int

    @property
    def ids(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


class Stored(NamedTuple):
    """Consecutive ids in one object."""

    first: int
    last: int
    key: str


class Repeat(NamedTuple):
    """Ids that are stored more than once, by the objects that hold them (one may do so twice)."""

    first: int
    last: int
    keys: tuple[str, ...]


def runs(numbers: Iterable[int]) -> list[Span]:
    """Return the spans that numbers make, each number as often as it was given."""
    spans: list[Span] = []
    again: list[int] = []
    first = last = 0  # ids begin at 1, so 0 is before the first number
    for number in sorted(numbers):
        if number == last:
            again.append(number)
        elif last and number == last + 1:
            last = number
        else:
            if last:
                spans.append(Span(first, last))
            first = last = number
    if last:
        spans.append(Span(first, last))
    return spans + runs(again) if again else spans


def union(spans: Iterable[Span | Stored | Repeat]) -> list[Span]:
    """Return the same ids in order, as few spans as possible."""
    merged: list[Span] = []
    for first, last in sorted((span.first, span.last) for span in spans):
        if merged and first <= merged[-1].last + 1:
            if last > merged[-1].last:
                merged[-1] = Span(merged[-1].first, last)
        else:
            merged.append(Span(first, last))
    return merged


def subtract(these: list[Span], those: list[Span]) -> list[Span]:
    """Return the ids of ``these`` that are not in ``those``; both as ``union`` returns them."""
    rest: list[Span] = []
    for span in these:
        begin = span.first
        for other in _touching(span, those):
            if other.first > begin:
                rest.append(Span(begin, other.first - 1))
            begin = other.last + 1
        if begin <= span.last:
            rest.append(Span(begin, span.last))
    return rest


def intersect(these: list[Span], those: list[Span]) -> list[Span]:
    """Return the ids of ``these`` that are in ``those``, which is as ``union`` returns it."""
    return [
        Span(max(span.first, other.first), min(span.last, other.last))
        for span in these
        for other in _touching(span, those)
    ]


def total_ids(spans: Iterable[Span]) -> int:
    """Return how many ids spans hold that have none in common."""
    return sum(span.ids for span in spans)


def _touching(span: Span, others: list[Span]) -> Iterator[Span]:
    """Yield those of ``others`` (in order, apart) that have ids in common with ``span``."""
    position = bisect_left(others, span.first, key=lambda other: other.last)
    while position < len(others) and others[position].first <= span.last:
        yield others[position]
        position += 1
