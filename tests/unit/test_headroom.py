"""Settings that are valid and too small for each other."""

import pytest

from estat.cli import check
from tests.unit.config.test_loading import load


def test_the_sum_is_that_of_the_page_about_sizes():
    # "178 MB with the defaults": in memory, in journals, and for each request and batch
    overhead = (4000 + 11) * 2048
    assert check.needed_bytes(load(DURABILITY="memory")) - overhead == 74 * 2**20
    assert check.needed_bytes(load()) - overhead == (74 + 88) * 2**20
    assert check.needed_bytes(load(WEB_CONCURRENCY="3")) == 3 * check.needed_bytes(load())


@pytest.mark.parametrize("size", ["4KiB", "100MB"])
def test_a_dlq_that_memory_alone_can_fill_is_told(size):
    (text,) = check.too_small(load(DLQ_MAX_SIZE_BYTES=size))
    assert text.startswith(f"DLQ_MAX_SIZE_BYTES={load(DLQ_MAX_SIZE_BYTES=size).dlq_max_size_bytes}")
    assert "is below the 179MB" in text


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"SHUTDOWN_TIMEOUT": "9s"}, "2.67s"),
        ({"DRAIN_DELAY": "20s"}, "1.33s"),
        ({"S3_TIMEOUT": "9s"}, "8s"),
        ({"SHUTDOWN_TIMEOUT": "1s"}, "0.267s"),
    ],
)
def test_a_stop_without_time_for_an_upload_is_told(given, left):
    (text,) = check.too_small(load(**given))
    assert f"leaves {left} for uploads" in text


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"DLQ_MAX_SIZE_BYTES": "179MB"},
        {"DLQ_MAX_SIZE_BYTES": "4KiB", "DLQ_OVERFLOW": "drop_oldest"},
        {"SHUTDOWN_TIMEOUT": "10s"},
        {"DRAIN_DELAY": "15s"},
        {"S3_TIMEOUT": "8s"},
    ],
)
def test_what_is_enough_is_not_told(given):
    assert check.too_small(load(**given)) == []
