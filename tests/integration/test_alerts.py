"""The alert rules fire when they should, on metrics that exist, and name a paragraph that is."""

import re
import shutil

import pytest

from estat.accounting import exposition, metrics
from tests.conftest import need
from tests.support.command import run
from tests.support.server import ROOT

CONF = ROOT / "conf" / "prometheus"
RULES = (CONF / "alerts.yml").read_text()

#: Words of PromQL, names of labels, and what is Prometheus's own.
_NO_METRICS = {
    *("and", "by", "deriv", "histogram_quantile", "increase", "max", "offset", "on", "rate"),
    *("sum", "unless"),
    *("instance", "job", "le", "reason", "up", "where"),
}


@pytest.fixture(scope="module")
def promtool():
    path = shutil.which("promtool")
    need(path, "promtool")
    return path


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=["configuration", "rules"],
)
def test_promtool_finds_no_fault(promtool, arguments):
    done = run([promtool, *arguments], cwd=CONF)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.quick
def test_every_metric_of_a_rule_is_one_that_the_server_has():
    expressions = re.findall(r"expr: (.*(?:\n {10,}.*)*)", RULES)
    assert len(expressions) == RULES.count("- alert:")
    text = re.sub(r'"[^"]*"|\[[^]]*\]', "", "\n".join(expressions))
    names = set(re.findall(r"\b[a-z][a-z0-9_]+", text)) - _NO_METRICS
    exposed = set(re.findall(r"(?m)^(\w+)", exposition.render(metrics.page()).decode()))
    assert names
    assert names <= exposed


@pytest.mark.quick
def test_every_rule_leads_to_a_section_of_the_runbook():
    runbook = (ROOT / "docs" / "troubleshooting.md").read_text()
    headings = re.findall(r"(?m)^## (.+)$", runbook)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    named = re.findall(r"runbook: docs/troubleshooting.md#(\S+)", RULES)
    assert len(named) == RULES.count("- alert:")
    assert set(named) <= anchors
