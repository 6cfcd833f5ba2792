"""What /metrics shows of the rows, and what of a process outlives it."""

import pytest

from estat.accounting import exposition, metrics
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import SharedPage


@pytest.fixture
def page() -> SharedPage:
    return metrics.page()


def write(page: SharedPage, slot: int) -> Metrics:
    """Return a worker's metrics; its row is in use."""
    page.rows[slot].change({})
    return Metrics(page.rows[slot])


def samples(page: SharedPage) -> dict[str, float]:
    lines = exposition.render(page).decode().splitlines()
    told = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in told}


def test_the_rows_of_all_workers_are_added_up(page: SharedPage) -> None:
    for slot, events in ((1, 3), (5, 4)):
        worker = write(page, slot)
        worker.count(metrics.REQUESTS, events)
        worker.set(metrics.QUEUE_EVENTS, events)
    told = samples(page)
    assert (told["http_requests_total"], told["queue_events"]) == (7, 7)


def test_a_label_has_a_sample_for_each_of_its_values(page: SharedPage) -> None:
    write(page, 1).count(metrics.REQUESTS_REJECTED["too_large"], 2)
    told = samples(page)
    assert told['http_requests_rejected_total{reason="too_large"}'] == 2
    assert told['http_requests_rejected_total{reason="queue_full"}'] == 0


def test_of_a_process_that_is_gone_counters_stay_and_gauges_go(page: SharedPage) -> None:
    worker = write(page, 1)
    worker.count(metrics.REQUESTS, 3)
    worker.count(metrics.DLQ_FILES, 2)
    worker.set(metrics.BREAKER_OPEN, 1)
    worker.set(metrics.DLQ_OLDEST, 1)
    metrics.forget_process(page.rows[1])
    told = samples(page)
    assert (told["http_requests_total"], told["dlq_files_current"]) == (3, 2)
    assert (told["breaker_open"], told["dlq_oldest_seconds"]) == (0, 0)


def test_a_histogram_counts_values_up_to_each_bound_with_their_weight(page: SharedPage) -> None:
    worker = write(page, 1)
    worker.observe(metrics.BATCH_EVENTS, 10)
    worker.observe(metrics.BATCH_EVENTS, 11, weight=2)
    worker.observe(metrics.BATCH_EVENTS, 10**6)
    told = samples(page)
    buckets = [told[f'batch_events_bucket{{le="{le}"}}'] for le in ("1.0", "10.0", "50.0", "+Inf")]
    assert buckets == [0, 1, 3, 4]
    assert told["batch_events_sum"] == 10 + 2 * 11 + 10**6
    assert told["batch_events_count"] == 4


def test_a_sum_of_seconds_keeps_their_fractions_and_never_overflows(page: SharedPage) -> None:
    worker = write(page, 1)
    worker.observe(metrics.PUT_SECONDS, 0.25)
    assert samples(page)["s3_put_seconds_sum"] == 0.25
    worker.observe(metrics.PUT_SECONDS, 1e15)
    assert samples(page)["s3_put_seconds_sum"] == pytest.approx(2**63 / 1e6)


def test_the_age_of_the_oldest_batch_is_told_only_while_there_are_files(page: SharedPage) -> None:
    first, second = write(page, 1), write(page, 2)
    first.set(metrics.DLQ_OLDEST, 1_000)
    second.set(metrics.DLQ_OLDEST, 2_000_000_000)
    assert samples(page)["dlq_oldest_seconds"] == 0
    first.count(metrics.DLQ_FILES)
    assert samples(page)["dlq_oldest_seconds"] > 1_000_000_000


def test_what_is_hidden_or_internal_is_not_shown(page: SharedPage) -> None:
    write(page, 1).count(metrics.EXPOSED_BYTES, 5)
    hidden = {"exposed_bytes", "dlq_led", "events_orphaned", "dlq_oldest_unix"}
    assert hidden.isdisjoint(samples(page))
