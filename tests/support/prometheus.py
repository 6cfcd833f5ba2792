"""A real Prometheus that scrapes one server."""

import json
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.support.server import free_port

CONF = Path(__file__).resolve().parents[2] / "conf" / "prometheus"


class Series(NamedTuple):
    """What an expression found: labels, and (unix time, value) pairs."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.samples]


class Prometheus:
    """One that looks every second and fires after one; a context manager."""

    def __init__(self, directory: Path, server_port: int) -> None:
        config = (CONF / "prometheus.yml").read_text()
        rules = (CONF / "alerts.yml").read_text()
        (directory / "prometheus.yml").write_text(
            config.replace("127.0.0.1:8080", f"127.0.0.1:{server_port}").replace("15s", "1s")
        )
        (directory / "alerts.yml").write_text(
            rules.replace("for: 5m", "for: 1s").replace("for: 1m", "for: 1s")
        )
        self._directory = directory
        self._port = free_port()

    def __enter__(self) -> Self:
        with (self._directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def query(self, expression: str) -> list[Series]:
        """Return what an expression finds now."""
        found = self._get("query", query=expression)["result"]
        return [_series(one["metric"], [one["value"]]) for one in found]

    def course(self, expression: str, start: float, end: float, step: float = 1) -> list[Series]:
        """Return what an expression finds at each step of a time."""
        found = self._get("query_range", query=expression, start=start, end=end, step=step)
        return [_series(one["metric"], one["values"]) for one in found["result"]]

    def label_values(self, label: str, selector: str | None = None) -> list[str]:
        """Return the values that a label has, in the series selected."""
        chosen = {"match[]": selector} if selector else {}
        found: list[str] = self._get(f"label/{label}/values", **chosen)
        return found

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {found.labels["alertname"] for found in self.query('ALERTS{alertstate="firing"}')}

    def _get(self, what: str, **parameters: object) -> Any:
        """Ask its API; an OSError while it is starting, or for an expression that is none."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{query}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]


def _series(labels: dict[str, str], samples: list[tuple[float, str]]) -> Series:
    return Series(labels, [(at, float(value)) for at, value in samples])
