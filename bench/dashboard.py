"""``python -m bench.dashboard FILE``: the Grafana dashboard through an outage, as PNG.

The panels are those of conf/grafana/estat.json, where they are there, each with what
Prometheus answered to its own expressions. Rows that are folded at first stay folded. It
is drawn with matplotlib: it looks like Grafana's light theme, and is not a screenshot.
Needs the extra ``bench``.
"""

import argparse
import io
import math
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, MinuteLocator, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Polygon, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from bench import disk, incident
from bench.errors import BenchError
from bench.incident import Found
from tests.support import dashboard
from tests.support.prometheus import Series

# CSS pixels, of which the picture has two in each direction
_SCALE = 2
_WIDTH, _COLUMNS = 960, 24
_CELL, _GAP, _HEADER, _FOOTER = 24, 4, 62, 24
_INCH = 96
_DAY = 86400  # matplotlib counts days

_INK, _SOFT, _EDGE, _PAPER = "#1F2328", "#6B737C", "#DDE1E6", "#F5F6F8"
_NAMED = {"green": "#2F8F46", "orange": "#E8850C", "red": "#D02F3E"}
#: Grafana's first colors for lines that have none of their own.
_CLASSIC = ("#73BF69", "#F2CC0C", "#5794F2", "#FF780A")

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _EDGE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ECEFF2",
    "grid.linewidth": 0.6,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelsize": 6.4,
    "ytick.labelsize": 6.4,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 2.5,
    "ytick.major.pad": 2.5,
}

#: As many as the few colors with their shades need.
_PALETTE = 256


def main() -> int:
    """Have an incident and draw it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.dashboard", description=__doc__)
    parser.add_argument("file", help="the PNG to write")
    path = parser.parse_args().file
    # a terminated run must stop its servers too
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=disk.choose(None)) as directory:
            found = incident.run(directory)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    draw(found, path)
    return 0


def draw(found: Found, path: str) -> None:
    """Write the picture."""
    with mpl.rc_context(_STYLE):
        figure = _Page(found).figure
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=_INCH * _SCALE, facecolor=_PAPER)
    image = Image.open(drawn).convert("RGB")
    image.quantize(_PALETTE, dither=Image.Dither.NONE).save(path, optimize=True)


class _Page:
    """The whole picture."""

    def __init__(self, found: Found) -> None:
        self._found = found
        places = [panel["gridPos"] for panel in dashboard.DASHBOARD["panels"]]
        rows = max(place["y"] + place["h"] for place in places)
        self._height = _HEADER + rows * _CELL + _FOOTER
        self.figure = Figure(figsize=(_WIDTH / _INCH, self._height / _INCH))
        (mark,) = dashboard.DASHBOARD["annotations"]["list"]
        self._mark = mark
        self._marked = [at for one in found.courses[mark["expr"]] for at, _ in one.samples]
        self._header()
        for panel in dashboard.DASHBOARD["panels"]:
            {"row": self._row, "stat": self._stat, "timeseries": self._graph}[panel["type"]](panel)
        self._text(
            12, self._height - 9,
            "Drawn by make picture from the answers of a real Prometheus to the "
            "dashboard's own queries; not a screenshot of Grafana.",
            6.2, _SOFT,
        )  # fmt: skip

    def _text(self, x: float, y: float, text: str, size: float, color: str, **more: Any) -> Any:
        """Write text, its base line at a place in pixels from the top left."""
        return self.figure.text(
            x / _WIDTH, 1 - y / self._height, text, fontsize=size, color=color, **more
        )

    def _card(self, place: dict[str, int], face: str, edge: str) -> tuple[float, ...]:
        """Draw the paper of a panel; return x, y, width and height in pixels."""
        column = (_WIDTH - 2 * _GAP) / _COLUMNS
        x = _GAP + place["x"] * column + _GAP / 2
        y = _HEADER + place["y"] * _CELL + _GAP / 2
        width, height = place["w"] * column - _GAP, place["h"] * _CELL - _GAP
        self.figure.add_artist(
            FancyBboxPatch(
                (x / _WIDTH, 1 - (y + height) / self._height),
                width / _WIDTH, height / self._height,
                boxstyle="square,pad=0", facecolor=face, edgecolor=edge, linewidth=0.6,
                zorder=-1,
            )
        )  # fmt: skip
        return x, y, width, height

    def _header(self) -> None:
        title = dashboard.DASHBOARD["title"]
        self._text(12, 25, title, 12, _INK, weight="bold")
        start, end = (_clock(at) for at in (self._found.start, self._found.end))
        self._text(_WIDTH - 12, 25, f"{start} to {end} UTC", 7.4, _SOFT, ha="right")
        if self._marked:
            self._text(_WIDTH - 12, 48, self._mark["name"], 6.8, _INK, ha="right")
            self.figure.add_artist(
                Rectangle(
                    ((_WIDTH - 68) / _WIDTH, 1 - 48 / self._height), 10 / _WIDTH, 9 / self._height,
                    color=self._mark["iconColor"], alpha=0.25, linewidth=0,
                )
            )  # fmt: skip
        x = 12.0
        for variable in dashboard.DASHBOARD["templating"]["list"]:
            name = variable["name"]
            if name == "datasource":
                continue
            shown = "All" if variable.get("includeAll") else self._found.values[name]
            label = self._text(x, 48, variable["label"], 6.8, _SOFT)
            x += self._width(label) + 5
            value = self._text(x, 48, shown, 6.8, _INK, weight="bold")
            x += self._width(value) + 16

    def _width(self, text: Any) -> float:
        """Return the width of a text in pixels."""
        width: float = text.get_window_extent().width / self.figure.dpi * _INCH
        return width

    def _row(self, panel: dict[str, Any]) -> None:
        y = _HEADER + panel["gridPos"]["y"] * _CELL + _CELL - 7
        folded = panel["collapsed"]
        corners = (
            ((12, -8), (12, 0), (17, -4)) if folded else ((10.5, -6.5), (18.5, -6.5), (14.5, -1.5))
        )
        self.figure.add_artist(
            Polygon([((a) / _WIDTH, 1 - (y + b) / self._height) for a, b in corners], color=_SOFT)
        )
        title = self._text(24, y, panel["title"], 8.4, _INK, weight="bold")
        if folded:
            inside = ", ".join(one["title"] for one in panel["panels"])
            x = 24 + self._width(title) + 8
            self._text(x, y, f"({len(panel['panels'])} panels: {inside})", 6.8, _SOFT)

    def _stat(self, panel: dict[str, Any]) -> None:
        (value,) = (one.values[-1] for one in self._found.courses[panel["targets"][0]["expr"]])
        defaults = panel["fieldConfig"]["defaults"]
        steps = defaults["thresholds"]["steps"]
        reached = [step for step in steps if step["value"] is None or value >= step["value"]]
        color = _NAMED[reached[-1]["color"]]
        x, y, width, height = self._card(panel["gridPos"], color, color)
        self._text(x + 8, y + 18, panel["title"], 7.4, "white", weight="bold")
        self._text(
            x + width / 2, y + height - 15, _unit(defaults["unit"])(value), 17, "white",
            ha="center", weight="bold",
        )  # fmt: skip

    def _graph(self, panel: dict[str, Any]) -> None:
        x, y, width, height = self._card(panel["gridPos"], "white", _EDGE)
        self._text(x + 9, y + 17, panel["title"], 7.8, _INK, weight="bold")
        left, right, top, bottom = 43, 10, 27, 38
        axes = self.figure.add_axes(
            (
                (x + left) / _WIDTH, 1 - (y + height - bottom) / self._height,
                (width - left - right) / _WIDTH, (height - top - bottom) / self._height,
            ),
            facecolor="none",
        )  # fmt: skip
        if self._marked:
            axes.axvspan(
                _moment(self._marked[0]), _moment(self._marked[-1]), color=self._mark["iconColor"],
                alpha=0.09, linewidth=0, zorder=0,
            )  # fmt: skip
        handles = _plotted(axes, panel, self._found.courses)
        axes.set_xlim(_moment(self._found.start), _moment(self._found.end))
        axes.xaxis.set_major_locator(MinuteLocator())
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
        axes.grid(visible=False, axis="x")
        self.figure.legend(
            handles=handles, loc="lower left", ncols=len(handles), frameon=False, fontsize=6.6,
            bbox_to_anchor=((x + 6) / _WIDTH, 1 - (y + height - 3) / self._height),
            borderaxespad=0, borderpad=0, handlelength=1.0, handletextpad=0.45, columnspacing=1.1,
            labelcolor=_INK,
        )  # fmt: skip


def _plotted(
    axes: Axes, panel: dict[str, Any], courses: dict[str, list[Series]]
) -> list[Line2D | Patch]:
    """Draw what the expressions of a panel found; return what its legend shows."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    overrides = {
        one["matcher"]["options"]: {item["id"]: item["value"] for item in one["properties"]}
        for one in panel["fieldConfig"]["overrides"]
    }
    handles: list[Line2D | Patch] = []
    spare = iter(_CLASSIC * 6)
    base: dict[float, float] = {}
    highest, lowest = 0.0, math.inf
    for target in panel["targets"]:
        for series in courses[target["expr"]]:
            legend = _legend(target["legendFormat"], series.labels)
            style = overrides.get(legend, {})
            color = style["color"]["fixedColor"] if style else next(spare)
            moments = [_moment(at) for at, _ in series.samples]
            known = [value for value in series.values if value > 0]
            lowest = min([lowest, *known])
            if custom["drawStyle"] == "bars":
                floors = [base.get(at, 0.0) for at, _ in series.samples]
                axes.bar(
                    moments,
                    series.values,
                    incident.STEP_SECONDS / _DAY,
                    floors,
                    color=color,
                    linewidth=0,
                )
                base |= {
                    at: floor + value
                    for (at, value), floor in zip(series.samples, floors, strict=True)
                }
                highest = max([highest, *base.values()])
                handles.append(Patch(color=color, label=legend))
                continue
            highest = max([highest, *known])
            dashed = "custom.lineStyle" in style
            fill = style.get("custom.fillOpacity", custom["fillOpacity"])
            axes.fill_between(moments, series.values, color=color, alpha=fill / 100, linewidth=0)
            (line,) = axes.plot(
                moments, series.values, color=color, linewidth=0.9 if dashed else 1.3,
                linestyle=(0, (4, 3)) if dashed else "-", label=legend,
            )  # fmt: skip
            handles.append(line)
    _scale(axes, defaults, lowest, highest)
    return handles


def _scale(axes: Axes, defaults: dict[str, Any], lowest: float, highest: float) -> None:
    shown = _unit(defaults["unit"])
    axis = axes.yaxis
    if defaults["custom"]["scaleDistribution"]["type"] == "log":
        axes.set_yscale("log")
        floor = 10 ** math.floor(math.log10(lowest))
        axes.set_ylim(floor, highest * 1.7)
        axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if highest < 100 * floor else (1,)))
        axis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="minor", length=0)
    else:
        top = (highest or 1.0) * 1.12
        axes.set_ylim(0, top)
        if defaults["unit"] == "bytes":
            axis.set_major_locator(FixedLocator(list(_binary_ticks(top))))
        else:
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def _binary_ticks(top: float) -> Iterable[float]:
    """Return round numbers of bytes: a power of two, three to five of them."""
    step = 2.0 ** math.floor(math.log2(top / 3))
    while top / step > 5:
        step *= 2
    return (number * step for number in range(math.floor(top / step) + 1))


def _legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def _unit(name: str) -> Callable[[float], str]:
    """Return what writes a number in a unit of Grafana's."""
    return {"short": _short, "s": _seconds, "bytes": _bytes, "percentunit": _percent}[name]


def _short(value: float) -> str:
    return f"{value / 1000:.3g} K" if value >= 1000 else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return "0 s"


def _bytes(value: float) -> str:
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def _moment(at: float) -> float:
    number: float = date2num(datetime.fromtimestamp(at, UTC))
    return number


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def _terminated(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
