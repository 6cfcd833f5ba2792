"""A real Prometheus scrapes the server through an outage: its alerts, and the dashboard on it."""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.conftest import need
from tests.support import dashboard
from tests.support.client import Load
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.prometheus import Prometheus
from tests.support.s3 import Moto
from tests.support.server import Server

#: What Grafana would put in for a scrape every second; the settings as they are by default.
VALUES = {
    "job": "estat",
    "instance": ".+",
    "window": "10s",
    "__rate_interval": "4s",
    "__range": "10m",
    "flush_interval": "120",
    "dlq_max_size": "18e9",
    "dlq_max_age": "86400",
}

STATS = {panel["title"]: panel for panel in dashboard.panels() if panel["type"] == "stat"}


class Incident(NamedTuple):
    """An outage that is over, and the Prometheus that saw it."""

    prometheus: Prometheus
    fired: set[str]
    began: float
    ended: float

    def course(self, expression: str) -> list[list[float]]:
        """Return the numbers that an expression of the dashboard found, for each series."""
        filled = dashboard.filled_in(expression, VALUES)
        found = self.prometheus.course(filled, self.began, self.ended)
        numbers = [[v for v in series.values if not math.isnan(v)] for series in found]
        return [values for values in numbers if values]

    def at_the_end(self, title: str) -> list[float]:
        """Return what one of the numbers at the top of the dashboard is when all is over."""
        expression = STATS[title]["targets"][0]["expr"]
        found = self.prometheus.query(dashboard.filled_in(expression, VALUES))
        return [value for series in found for value in series.values]

    def most(self, title: str) -> float:
        """Return the largest that it was."""
        (values,) = self.course(STATS[title]["targets"][0]["expr"])
        return max(values)


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory, moto: Moto) -> Iterator[Incident]:
    """Two workers under load, some of it refused; S3 goes down and comes back."""
    need(shutil.which("prometheus"), "prometheus")
    directory = tmp_path_factory.mktemp("incident")
    with ExitStack() as running:
        s3 = running.enter_context(FaultyS3(moto.port))
        settings = moto.environ | {
            "RAW_BUCKET": moto.new_bucket().name,
            "AWS_ENDPOINT_URL_S3": s3.url,
            "FLUSH_INTERVAL": "200ms",
            "S3_APP_RETRIES": "0",
        }
        server = running.enter_context(Server(directory, settings, workers=2))
        prometheus = running.enter_context(Prometheus(directory, server.port))
        eventually(lambda: prometheus.query('up{job="estat"} == 1'), 60, "the server is scraped")
        yield _suffered(server, s3, prometheus)


def _suffered(server: Server, s3: FaultyS3, prometheus: Prometheus) -> Incident:
    began = time.time()
    seen: set[str] = set()

    def fires() -> bool:
        seen.update(prometheus.firing())
        return "EstatStoreDown" in seen

    def over() -> bool:
        seen.update(prometheus.firing())
        return not prometheus.firing()

    with Load(server, clients=2):
        assert prometheus.firing() == set()
        assert server.post(b"not JSON").status == 400
        assert server.post(b'[{"good": 1}, "bad"]').status == 202
        s3.fail("503")
        server.until(fires, "the alert fires")
        s3.heal()
        server.until(over, "it clears", 90)
    server.until(server.settled, "everything is stored")
    all_waiting = 'sum({__name__=~"events_pending|dlq_events_current|journal_size_bytes"})'
    server.until(lambda: prometheus.query(f"{all_waiting} == 0"), "Prometheus has seen it")
    return Incident(prometheus, seen, began, time.time())


def test_the_alert_for_an_outage_fires_and_clears_and_no_other_does(incident: Incident) -> None:
    assert incident.fired == {"EstatStoreDown"}


@pytest.mark.parametrize("panel", dashboard.panels(), ids=lambda panel: panel["title"])
def test_every_expression_of_a_panel_finds_numbers(incident: Incident, panel: dict) -> None:
    courses = {target["expr"]: incident.course(target["expr"]) for target in panel["targets"]}
    assert [expression for expression, found in courses.items() if not found] == []


@pytest.mark.parametrize("title", STATS)
def test_a_number_at_the_top_of_the_dashboard_is_one_number(incident: Incident, title: str) -> None:
    (value,) = incident.at_the_end(title)
    assert math.isfinite(value)


@pytest.mark.parametrize("title", ["S3 down", "Disk in use", "Oldest in DLQ"])
def test_the_top_of_the_dashboard_shows_an_outage_and_its_end(
    incident: Incident, title: str
) -> None:
    assert incident.most(title) > 0
    assert incident.at_the_end(title) == [0]


@pytest.mark.parametrize(
    "title", ["Servers down", "Unaccounted", "Dropped", "Refused by us", "Damaged"]
)
def test_the_top_of_the_dashboard_shows_no_loss_where_there_is_none(
    incident: Incident, title: str
) -> None:
    assert incident.at_the_end(title) == [0]


def test_the_outage_is_marked_on_the_graphs(incident: Incident) -> None:
    (mark,) = dashboard.DASHBOARD["annotations"]["list"]
    (values,) = incident.course(mark["expr"])
    assert min(values) > 0
    assert len(values) < incident.ended - incident.began
