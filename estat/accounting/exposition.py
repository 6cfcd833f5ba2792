"""Tells the metrics of all rows as /metrics does. prometheus_client is imported here alone."""

import time
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from estat.accounting import metrics
from estat.accounting.metrics import Histogram
from estat.accounting.shared_memory import SharedPage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(shared: SharedPage) -> bytes:
    """Return the Prometheus text exposition of all rows together."""
    return generate_latest(_PageCollector(shared))


class _PageCollector(Collector):
    def __init__(self, shared: SharedPage) -> None:
        self._page = shared

    def collect(self) -> Iterator[Metric]:
        found = metrics.totals(self._page)
        families: dict[str, Metric] = {}
        for at, cell in metrics.CELLS.items():
            if cell.help:
                kind = "counter" if cell.kind == "counter" else "gauge"
                name = cell.name.removesuffix("_total")  # which the library adds to a counter
                family = families.setdefault(cell.name, Metric(name, cell.help, kind))
                family.add_sample(cell.name, cell.labels, found[at])
        yield from families.values()
        yield _oldest(self._page, found[metrics.DLQ_FILES])
        for histogram in metrics.HISTOGRAMS:
            yield _family(histogram, found)


def _oldest(shared: SharedPage, files: int) -> Metric:
    oldest = [row.cells[metrics.DLQ_OLDEST] for row in shared.used_rows()]
    known = [time_of for time_of in oldest if time_of]
    age = max(0.0, time.time() - min(known)) if known and files > 0 else 0.0
    return GaugeMetricFamily("dlq_oldest_seconds", "Age of the oldest batch in the DLQ.", age)


def _family(histogram: Histogram, found: list[int]) -> Metric:
    end = histogram.at + len(histogram.bounds) + 1
    cumulated = accumulate(found[histogram.at : end])
    bounds = (*map(str, map(float, histogram.bounds)), "+Inf")
    return HistogramMetricFamily(
        histogram.name,
        histogram.help,
        buckets=list(zip(bounds, cumulated, strict=True)),
        sum_value=found[end] / histogram.scale,
    )
