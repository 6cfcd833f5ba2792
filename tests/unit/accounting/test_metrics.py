"""What /metrics shows of the rows, and what of a process outlives it."""

import itertools

import pytest

from estat.accounting import exposition, metrics
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import SharedPage

CONTRACT = """
http_requests_total http_requests_accepted_total http_requests_rejected_queue_full_total
s3_events_stored_total s3_put_errors_total dlq_events_enqueued_total dlq_events_reuploaded_total
dlq_events_dropped_total dlq_files_current http_requests_rejected_total events_accepted_total
events_adopted_total events_handed_over_total events_pending dlq_events_current dlq_size_bytes
dlq_oldest_seconds dlq_files_expired_total dlq_files_quarantined_total queue_events queue_bytes
event_store_lag_seconds_count
"""


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


def test_a_cell_without_a_help_text_is_not_shown(page: SharedPage) -> None:
    for cell in (metrics.EXPOSED_BYTES, metrics.ORPHANED, metrics.BOOTS):
        write(page, 1).count(cell, 5)
    hidden = {"exposed_bytes", "events_orphaned", "workers_booted"}
    assert hidden.isdisjoint(samples(page))


def test_every_metric_of_the_contract_is_shown(page: SharedPage) -> None:
    shown = {name.partition("{")[0] for name in samples(page)}
    assert set(CONTRACT.split()) - shown == set()


def test_cells_do_not_overlap() -> None:
    spans = [(at, at) for at in metrics.CELLS]
    spans += [(h.at, h.at + len(h.bounds) + 1) for h in metrics.HISTOGRAMS]
    spans.sort()
    assert spans[0][0] == 1
    assert spans[-1][1] == metrics.COLUMNS - 1
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(spans))
