"""The Grafana dashboard is one that Grafana takes, and it leaves nothing out unsaid."""

import json
import re

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from estat.accounting import exposition, metrics
from estat.config import loading
from tests.support import dashboard
from tests.support.dashboard import DASHBOARD
from tests.support.server import ROOT

#: Metrics that the dashboard does without, and why.
LEFT_OUT = {
    "http_requests_rejected_queue_full_total": "it is reason queue_full of another",
    "log_lines_dropped_total": "it has an alert, and says nothing of events",
    "events_accepted_by_key_total": "it is there only with WRITE_KEYS",
    "rejected_kept_total": "it counts only with REJECTED_PREFIX, and says nothing of events",
    "rejected_not_kept_total": "the same",
    "dlq_files_set_aside": "it has an alert, and its files stay until somebody looks at them",
    "answers_kept_total": "it counts only with DURABILITY=stored, and has an alert",
}

#: What Grafana itself sets.
BUILT_IN = {"__rate_interval", "__range"}

#: Fields of Grafana's that its own schema forgets.
UNTYPED = {"titleFormat"}

RUNBOOK = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "ops.md").read_text(encoding="utf-8").partition("## Metrics")[2]


def test_grafanas_own_schema_knows_every_field():
    register_default_plugins()
    known = json.loads(json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder))
    assert list(_unknown(DASHBOARD, known)) == []


def _unknown(ours, known, path=""):
    if isinstance(ours, dict):
        for name, value in ours.items():
            if name in known:
                yield from _unknown(value, known[name], f"{path}.{name}")
            elif name not in UNTYPED:
                yield f"{path}.{name}"
    elif isinstance(ours, list):
        for number, (value, other) in enumerate(zip(ours, known, strict=True)):
            yield from _unknown(value, other, f"{path}[{number}]")
    elif ours != known:
        yield path


def test_every_variable_is_used_and_every_used_one_is_there():
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set.union(*map(dashboard.variables, dashboard.expressions()))
    assert used - BUILT_IN == names - {"datasource"}


def test_the_settings_to_put_in_are_the_defaults_of_the_server():
    settings = loading.load({"RAW_BUCKET": "bucket"}, env_file="")
    boxes = {
        variable["name"]: float(variable["query"])
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "textbox"
    }
    assert boxes == {
        "flush_interval": settings.flush_interval,
        "dlq_max_size": settings.dlq_max_size_bytes,
        "dlq_max_age": settings.dlq_max_age,
    }


@pytest.mark.parametrize("panel", dashboard.panels(), ids=lambda panel: panel["title"])
def test_every_panel_says_what_to_do_and_where_to_read_on(panel):
    anchors = {
        heading.lower().replace(" ", "-") for heading in re.findall(r"(?m)^## (.+)$", RUNBOOK)
    }
    pages = re.findall(r"docs/(\w+\.md)(?:#([\w-]+))?", panel["description"])
    assert pages
    for page, anchor in pages:
        assert (ROOT / "docs" / page).exists()
        assert not anchor or anchor in anchors


def test_every_metric_is_on_it_or_left_out_for_a_reason():
    table = METRICS.partition("###")[0]
    told = set(re.findall(r"(?m)^\| `(\w+)", table))
    used = set.union(*map(dashboard.metrics, dashboard.expressions())) - {"up"}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert told - shown == set(LEFT_OUT)
    assert shown <= told


def test_every_metric_that_the_server_has_is_told():
    table = METRICS.partition("###")[0]
    told = set(re.findall(r"(?m)^\| `(\w+)", table))
    exposed = re.findall(r"(?m)^# TYPE (\w+)", exposition.render(metrics.page()).decode())
    assert set(exposed) | {"events_accepted_by_key_total"} == told
