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


def append(spans: list[Span], number: int) -> bool:
    """Add a number as it comes: to the last span if it follows that, else as a new one.

    Returns whether there is a span more.
    """
    if spans and number == spans[-1].last + 1:
        spans[-1] = Span(spans[-1].first, number)
        return False
    spans.append(Span(number, number))
    return True


def joined(spans: list[Span]) -> list[Span]:
    """Return spans in order, as few as possible; if a number is in two, return them as they are."""
    merged = union(spans)
    return merged if total_ids(merged) == total_ids(spans) else spans


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
