"""Percentiles of latencies, by nearest rank: each is a latency that some request really had."""

import math
from collections.abc import Sequence

_STEPS_PER_NINE = 20


def at(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that so many percent of all, sorted, are not above."""
    # the product is rounded first: 99.9 % of 1,000 must be the 999th, not the 1,000th
    rank = math.ceil(round(percent * len(ordered) / 100, 6))
    return ordered[max(rank, 1) - 1]


def grid(nines: int) -> list[float]:
    """Return percents whose distances to 100 shrink evenly in the logarithm: 0 … 90 … 99 … 99.9."""
    return [100 - 100 * 10 ** (-n / _STEPS_PER_NINE) for n in range(nines * _STEPS_PER_NINE + 1)]
