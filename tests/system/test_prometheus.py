"""A real Prometheus scrapes the server and evaluates the alert rules."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve, need
from tests.support.client import Load
from tests.support.eventually import eventually
from tests.support.faulty_s3 import FaultyS3
from tests.support.server import Server, free_port

CONF = Path(__file__).parents[2] / "conf" / "prometheus"


class Prometheus:
    """One that looks every second and fires after one; a context manager."""

    def __init__(self, directory: Path, server: Server) -> None:
        config = (CONF / "prometheus.yml").read_text()
        rules = (CONF / "alerts.yml").read_text()
        (directory / "prometheus.yml").write_text(
            config.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}").replace("15s", "1s")
        )
        (directory / "alerts.yml").write_text(
            rules.replace("for: 5m", "for: 1s").replace("for: 1m", "for: 1s")
        )
        self._port = free_port()
        with (directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["prometheus", f"--config.file={directory / 'prometheus.yml'}",
                 f"--storage.tsdb.path={directory / 'tsdb'}",
                 f"--web.listen-address=127.0.0.1:{self._port}"],
                stdout=log, stderr=log,
            )  # fmt: skip

    def query(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of what an expression finds; nothing while it is starting."""
        query = urllib.request.quote(expression)
        url = f"http://127.0.0.1:{self._port}/api/v1/query?query={query}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)
        except OSError:
            return []
        return [sample["metric"] for sample in found["data"]["result"]]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {labels["alertname"] for labels in self.query('ALERTS{alertstate="firing"}')}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def server(serve: Serve, s3: FaultyS3) -> Server:
    return serve(via=s3, workers=2, FLUSH_INTERVAL="200ms", S3_APP_RETRIES="0")


@pytest.fixture
def prometheus(tmp_path: Path, server: Server) -> Iterator[Prometheus]:
    need(shutil.which("prometheus"), "prometheus")
    running = Prometheus(tmp_path, server)
    yield running
    running.close()


def test_the_alert_for_an_outage_fires_and_clears_and_no_other_does(
    server: Server, s3: FaultyS3, prometheus: Prometheus
) -> None:
    eventually(lambda: prometheus.query('up{job="estat"} == 1'), 60, "the server is scraped")
    seen: set[str] = set()

    def fires() -> bool:
        seen.update(prometheus.firing())
        return "EstatStoreDown" in seen

    with Load(server, clients=2):
        assert prometheus.firing() == set()
        s3.fail("503")
        eventually(fires, 60, "the alert fires", last_words=server.log_text)
        s3.heal()
        eventually(lambda: not prometheus.firing(), 90, "it clears", last_words=server.log_text)
    eventually(server.settled, 60, "everything is stored", last_words=server.log_text)
    assert seen == {"EstatStoreDown"}
