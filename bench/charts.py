"""What was found, as SVG: bars with their spread, distributions, courses over time.

White paper and dark ink whatever the reader's theme is, so they are readable in
both. Needs the extra ``bench``.
"""

import math
import os
import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench import cost, driver, latency, memory
from bench.contenders import BARE, FLOOR, LATENCY_FLOOR, Contender
from bench.latency import Round
from bench.outage import Course

mpl.use("svg")

# distinguishable without colour vision too (Okabe and Ito)
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8A8A"
_COLOURS = (_BLUE, _ORANGE, _GREEN, _RED, _GREY)

_STYLE: Any = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 11,
    "figure.titlesize": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "svg.fonttype": "path",  # text looks the same where the font is missing
    "svg.hashsalt": "bench",  # the same figures give the same file
}

_PERCENTS = (0, 50, 90, 99, 99.9, 99.99)


class Charts:
    """Writes charts into a directory."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)
        self._directory = directory
        mpl.rcParams.update(_STYLE)

    def overhead(self, found: cost.Found) -> None:
        """Draw all contenders; and the usual server, ours and the floor alone."""
        ours = latency.held(found)
        bare_us, our_us = (statistics.median(r.cpu_us for r in found[c]) for c in (BARE, ours))
        share = f"{our_us / bare_us:.2f} of what it costs a bare Falcon resource"
        title = f"An event costs {our_us:.0f} µs of CPU, {share}"
        self._costs({c: found[c] for c in (BARE, ours, FLOOR)}, "event", title)
        self._costs(found, "cost", "Events that one worker accepts a second, and what each costs")

    def _costs(self, found: cost.Found, name: str, title: str) -> None:
        """Draw rate and CPU per event of each contender; requests of a size share a scale."""
        sizes = sorted({contender.events_per_request for contender in found})
        groups = [[c for c in found if c.events_per_request == size] for size in sizes]
        heights = [len(group) for group in groups]
        height = 1.5 + 0.6 * len(found)
        figure, axes = _figure(title, height, len(groups), 2, height_ratios=heights)
        for row, (size, group) in enumerate(zip(sizes, groups, strict=True)):
            names = [textwrap.fill(c.name.replace("DURABILITY=", ""), 20) for c in group]
            rates = [[r.events_per_second for r in found[c]] for c in group]
            costs = [[r.cpu_us for r in found[c]] for c in group]
            _bars(axes[row][0], names, rates, _BLUE, 0)
            _bars(axes[row][1], [""] * len(names), costs, _ORANGE, 1)
            a_request = "one event a request" if size == 1 else f"{size} events a request"
            axes[row][0].set_xlabel(f"events/s, {a_request}")
            axes[row][1].set_xlabel("CPU µs per event")
        self._write(figure, name)

    def latency(self, found: dict[Contender, list[Round]]) -> None:
        """Draw the distribution of latencies: the median of the rounds, and their range."""
        held = latency.held(found)
        p99_ms = statistics.median(r.half.p99_ms for r in found[held])
        title = f"At half of its maximum rate the server answers 99% within {p99_ms:.1f} ms"
        figure, [[axes]] = _figure(title, 4.5)
        xs = [_nines(percent) for percent in driver.grid(driver.NINES)]
        for (contender, rounds), colour in zip(found.items(), _COLOURS, strict=True):
            columns = list(zip(*(r.half.grid_ms for r in rounds), strict=True))
            low, high = [min(column) for column in columns], [max(column) for column in columns]
            middle = [statistics.median(column) for column in columns]
            rate = statistics.median(r.half.rate for r in rounds)
            label = f"{contender.name}, {rate:,.0f} events/s"
            axes.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(xs, middle, color=colour, label=label)
        echo = statistics.median(r.half.p99_ms for r in found[LATENCY_FLOOR])
        label = f"what p99 may be, {held.name}"
        axes.plot([_nines(99)], [latency.TARGET.most * echo], "v", color=_RED, label=label)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xticks([_nines(percent) for percent in _PERCENTS], [f"{p:g}" for p in _PERCENTS])
        axes.set_xlim(0, driver.NINES)
        axes.set_xlabel("percentile of requests, at half of the maximum rate")
        axes.set_ylabel("acknowledged after, ms")
        axes.legend(loc="lower right")
        self._write(figure, "latency")

    def outage(self, courses: Sequence[Course]) -> None:
        """Draw the rate of acceptance through each outage."""
        kept = min(1.0, *(course.during.rate / max(course.before.rate, 1) for course in courses))
        lost = sum(course.missing for course in courses)
        title = (
            f"While S3 is down, {kept:.0%} of the rate or more is kept; {lost:,} events are lost"
        )
        height = 2.0 * len(courses) + 0.6
        figure, column = _figure(title, height, len(courses), sharex=True, sharey=True)
        for (axes,), course in zip(column, courses, strict=True):
            down = course.during.readings[0].at
            phases = (course.before, course.during, course.after)
            xs = [r.at - down for phase in phases for r in phase.readings[1:]]
            rates = [rate for phase in phases for rate in phase.rates]
            axes.axvspan(0, course.during.readings[-1].at - down, color="#F3DCD3", linewidth=0)
            axes.plot(xs, rates, color=_BLUE)
            axes.set_title(f"S3 {_KINDS.get(course.kind, course.kind)}")
            axes.set_ylabel("events/s")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            empty = course.empty_seconds
            if empty is not None:
                at = course.during.readings[-1].at - down + empty
                axes.axvline(at, color=_GREEN, linestyle="--", linewidth=1.5)
                _note(axes, "DLQ empty", (at, 0), color="#00664B")
        bottom = column[-1][0]
        bottom.set_ylim(bottom=0)
        bottom.set_xlabel("seconds since S3 went down; shaded: down")
        self._write(figure, "outage")

    def memory(self, readings: Sequence[memory.Reading]) -> None:
        """Draw a worker's memory over time."""
        minutes = [r.seconds / 60 for r in readings]
        peak = readings[-1].peak / 1e6
        title = f"A worker takes {peak:.0f} MB at most in {minutes[-1]:.0f} minutes while S3 hangs"
        figure, [[axes]] = _figure(title, 3)
        axes.plot(minutes, [r.rss / 1e6 for r in readings], color=_BLUE)
        most = memory.TARGET.most
        axes.axhline(most, color=_RED, linestyle="--", linewidth=1.5)
        _note(axes, f"target {most:g} MB", (0, most), color="#9C4300")
        axes.set_ylim(0, 1.15 * max(most, *(r.rss / 1e6 for r in readings)))
        axes.set_xlim(left=0)
        axes.set_xlabel("minutes at full rate while S3 hangs")
        axes.set_ylabel("RSS of the worker, MB")
        self._write(figure, "memory")

    def _write(self, figure: Figure, name: str) -> None:
        # no date in it: the same figures give the same file
        figure.savefig(f"{self._directory}/{name}.svg", metadata={"Date": None, "Creator": None})


def _figure(
    title: str, height: float, rows: int = 1, columns: int = 1, **shape: Any
) -> tuple[Figure, list[list[Axes]]]:
    """Return an empty figure, so many inches high, and its rows."""
    figure = Figure(figsize=(7, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure, figure.subplots(rows, columns, squeeze=False, **shape).tolist()


_KINDS = {"refused": "refuses connections", "hang": "hangs", "503": "answers 503"}


def _bars(axes: Axes, names: list[str], found: list[list[float]], colour: str, digits: int) -> None:
    medians = [statistics.median(values) for values in found]
    below = [median - min(values) for median, values in zip(medians, found, strict=True)]
    above = [max(values) - median for median, values in zip(medians, found, strict=True)]
    places = range(len(found))
    whiskers = {"ecolor": "#222222", "elinewidth": 1.2, "capsize": 3}
    axes.barh(places, medians, xerr=(below, above), error_kw=whiskers, color=colour, height=0.62)
    for place, median, values in zip(places, medians, found, strict=True):
        _note(axes, f"{median:,.{digits}f}", (max(values), place), va="center")
    axes.set_yticks(places, names)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.3 * max(max(values) for values in found))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _note(axes: Axes, text: str, place: tuple[float, float], **style: Any) -> None:
    """Write beside a place: four points to its right, and above it where it is not centred."""
    above = 0 if "va" in style else 4
    axes.annotate(text, place, (4, above), textcoords="offset points", **style)


def _nines(percent: float) -> float:
    """Return how many nines a percentage has: 90 one, 99 two."""
    return math.log10(100 / (100 - percent))
