"""Writes the Grafana dashboard, estat.json, beside itself: ``python conf/grafana/dashboard.py``.

What it shows is in ``panels``. What all panels have in common is added here, with their ids
and their places on the grid.
"""

import json
from pathlib import Path
from typing import Any

from panels import MARK, ROWS, Graph, Line, Row, Stat

OUTPUT = Path(__file__).with_name("estat.json")

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24  # of Grafana's grid
_STAT_HEIGHT, _GRAPH_HEIGHT = 3, 7


def _query(name: str, label: str, query: str) -> dict[str, Any]:
    """Return a variable with a value for each label value, all of them at first."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _textbox(name: str, label: str, value: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "textbox",
        "query": value,
        "current": {"text": value, "value": value},
        "options": [{"text": value, "value": value, "selected": True}],
    }


#: The textboxes are settings that the server does not tell: operators put theirs in.
_VARIABLES = [
    {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
    _query("job", "Job", "label_values(events_accepted_total, job)"),
    # a server that does not answer has no metrics but this one
    _query("instance", "Server", 'label_values(up{job=~"$job"}, instance)'),
    {
        # longer than FLUSH_INTERVAL: a server with little traffic stores only that often
        "name": "window",
        "label": "Averaged over",
        "type": "interval",
        "query": "1m,5m,15m,1h,6h",
        "current": {"text": "5m", "value": "5m"},
        "options": [
            {"text": value, "value": value, "selected": value == "5m"}
            for value in ("1m", "5m", "15m", "1h", "6h")
        ],
    },
    _textbox("flush_interval", "FLUSH_INTERVAL, seconds", "120"),
    _textbox("dlq_max_size", "DLQ_MAX_SIZE_BYTES", "18000000000"),
    _textbox("dlq_max_age", "DLQ_MAX_AGE, seconds", "86400"),
]


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    return {
        "uid": "estat-ingest",
        "title": "Estat Ingest",
        "description": "From the top: is anything lost, does it accept, does it store, what "
        "waits. The i of a panel says what to do, and names the paragraph of the runbook.",
        "tags": ["estat"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # one crosshair over all panels
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "schemaVersion": 38,  # of Grafana 10.0; later ones migrate it
        "templating": {"list": _VARIABLES},
        "annotations": {
            "list": [
                {
                    "name": MARK[0],
                    "datasource": _SOURCE,
                    "enable": True,
                    "iconColor": MARK[2],
                    "expr": MARK[1],
                    "titleFormat": MARK[0],
                }
            ]
        },
        "panels": _laid_out(ROWS),
    }


def text() -> str:
    """Return the contents of the file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def _laid_out(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Return the panels of all rows, with ids and places; those of a collapsed row are in it."""
    found: list[dict[str, Any]] = []
    y = number = 0
    for row in rows:
        number += 1
        heading: dict[str, Any] = {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": row.collapsed,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        found.append(heading)
        y += 1
        width = _COLUMNS // len(row.panels)
        height = max(
            _STAT_HEIGHT if isinstance(panel, Stat) else _GRAPH_HEIGHT for panel in row.panels
        )
        into = heading["panels"] if row.collapsed else found
        for place, panel in enumerate(row.panels):
            number += 1
            at = {"x": place * width, "y": y, "w": width, "h": height}
            into.append({"id": number, "gridPos": at, **_panel(panel)})
        if not row.collapsed:
            y += height
    return found


def _panel(panel: Stat | Graph) -> dict[str, Any]:
    description = panel.todo
    if panel.runbook:
        description += f"\n\nRunbook: docs/ops.md#{panel.runbook}"
    common = {"title": panel.title, "description": description, "datasource": _SOURCE}
    return common | (_stat(panel) if isinstance(panel, Stat) else _graph(panel))


def _stat(panel: Stat) -> dict[str, Any]:
    orange, red = panel.alarms
    steps = [_step("green", None)]
    if orange is not None:
        steps.append(_step("orange", orange))
    return {
        "type": "stat",
        "targets": [_target(0, panel.expr, "") | {"instant": True, "range": False}],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": [*steps, _step("red", red)]},
                "color": {"mode": "thresholds"},
            },
            "overrides": [],
        },
        "options": {
            "colorMode": "background",
            "graphMode": "none",
            "textMode": "value",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def _graph(panel: Graph) -> dict[str, Any]:
    custom: dict[str, Any] = {
        "drawStyle": "bars" if panel.bars else "line",
        "lineWidth": 1 if panel.bars else 2,
        "fillOpacity": 60 if panel.bars else 0,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.bars else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if panel.log else {"type": "linear"},
    }
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic"},
        "custom": custom,
    }
    if not panel.log and not panel.signed:
        defaults["min"] = 0
    if panel.alarm is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        steps = [_step("transparent", None), _step("red", panel.alarm)]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "type": "timeseries",
        "targets": [
            _target(number, line.expr, line.legend) for number, line in enumerate(panel.lines)
        ],
        "fieldConfig": {
            "defaults": defaults,
            "overrides": [_override(line) for line in panel.lines if line.color],
        },
        "options": {
            "legend": {
                "showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": [],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }  # fmt: skip


def _target(number: int, expr: str, legend: str) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + number),
        "datasource": _SOURCE,
        "expr": expr,
        "legendFormat": legend,
    }


def _override(line: Line) -> dict[str, Any]:
    properties: list[dict[str, Any]] = [
        {"id": "color", "value": {"mode": "fixed", "fixedColor": line.color}}
    ]
    if line.dashed:
        style = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}
        properties += [style, {"id": "custom.lineWidth", "value": 1}]
    if line.filled:
        properties.append({"id": "custom.fillOpacity", "value": 20})
    return {"matcher": {"id": "byName", "options": line.legend}, "properties": properties}


def _step(color: str, value: float | None) -> dict[str, Any]:
    return {"color": color, "value": value}


if __name__ == "__main__":
    OUTPUT.write_text(text(), encoding="utf-8")
