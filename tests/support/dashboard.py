"""The Grafana dashboard as its readers see it: panels, and expressions with values put in."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[2] / "conf" / "grafana" / "estat.json"

DASHBOARD: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))

_VARIABLE = re.compile(r"\$(\w+)")


def rows_and_panels() -> Iterator[dict[str, Any]]:
    """Yield everything with a place on the grid, what is folded away in its row included."""
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def panels() -> list[dict[str, Any]]:
    return [panel for panel in rows_and_panels() if panel["type"] != "row"]


def expressions() -> list[str]:
    """Return every expression, as it is written there."""
    marks = [mark["expr"] for mark in DASHBOARD["annotations"]["list"]]
    return marks + [target["expr"] for panel in panels() for target in panel["targets"]]


def variables(text: str) -> set[str]:
    """Return the names of the variables in an expression."""
    return set(_VARIABLE.findall(text))


def filled_in(expression: str, values: dict[str, str]) -> str:
    """Put values in the places of the variables, as Grafana does; a KeyError tells of another."""
    return _VARIABLE.sub(lambda match: values[match[1]], expression)


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics in an expression: what stands before a selector."""
    return set(re.findall(r"(\w+)\{", expression))
