"""One test for each error that was found after it was made."""

import json
import time

import gevent
import pytest
from botocore.exceptions import ClientError

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.config import loading
from estat.disk import dlq_file
from estat.errors import ObjectRefused, SettingsError, StoreDenied, StoreUnavailable, Unreadable
from estat.events import json_text, stored_line
from estat.events.gzip import gzip
from estat.log import Seldom
from estat.pipeline.delivery import Delivery
from estat.stores.s3_errors import store_error
from estat.web.client_address import ClientAddress
from tests.unit.batches import batch

YEAR_SECONDS = 365 * 86400


@pytest.fixture
def counts():
    return Metrics(metrics.page().rows[1])


def test_the_lag_of_years_and_many_events_can_be_counted(counts):
    for _ in range(1000):
        counts.observe(metrics.LAG_SECONDS, 50 * YEAR_SECONDS, weight=1_000_000)
    counts.observe(metrics.LAG_SECONDS, 50 * YEAR_SECONDS, weight=2**40)
    total = counts.row.cells[metrics.LAG_SECONDS.at + len(metrics.LAG_SECONDS.bounds) + 1]
    assert total > 0


def test_digits_that_are_not_ascii_are_no_count_of_events():
    name = dlq_file.file_name(batch()).replace(".10.", ".\N{SUPERSCRIPT TWO}.")
    assert dlq_file.parse_name(name) == (0, None)


@pytest.mark.parametrize(
    "header",
    [
        b'{"estat_dlq":' + b"[" * 100_000,
        json.dumps({"estat_dlq": 1, "bucket": "b", "key": 7}).encode(),
        b"[1]",
        b'"text"',
    ],
)
def test_a_strange_header_makes_a_file_unreadable_and_nothing_else(header):
    data = gzip(header) + batch().payload
    with pytest.raises(Unreadable):
        dlq_file.unpack(data)


def test_a_deeply_nested_header_can_be_listed_as_unreadable_too():
    with pytest.raises(Unreadable):
        dlq_file.read_header(gzip(b'{"estat_dlq":' + b"[" * 100_000))


def test_a_newer_end_of_attempts_replaces_the_older_one(counts):
    delivery = Delivery(None, "events", 1, counts)
    now = time.monotonic()
    delivery.end_attempts(now + 0.01)
    delivery.end_attempts(now + 3600)
    assert not delivery._ended.wait(0.1)
    assert not delivery.over


def test_headers_are_cut_before_they_are_kept_in_a_cache():
    stored_line._header_text.cache_clear()
    for number in range(10):
        stored_line.header_text(f"{number}" + "x" * 8000)
    assert len(stored_line.header_text("x" * 8000)) == stored_line.MAX_HEADER_CHARS + 2
    environ = {"REMOTE_ADDR": "10.0.0.9", "HTTP_X_FORWARDED_FOR": "1" * 8000}
    assert ClientAddress(1).find(environ) == "10.0.0.9"


def test_nesting_and_a_lone_surrogate_together_are_a_bad_event_and_not_an_error_of_ours():
    for depth in range(900, 1000):
        text = '{"a":' * depth + '"\\ud800"' + "}" * depth
        try:
            json_text.dump(json_text.parse(text.encode()))
        except ValueError as exc:
            assert "nested too deeply" in str(exc)


def test_an_env_file_that_can_not_be_read_is_a_problem_of_the_settings(tmp_path):
    path = tmp_path / ".env"
    path.write_bytes(b"RAW_BUCKET=b # f\xfcr\n")
    with pytest.raises(SettingsError, match="can't be read"):
        loading.load({"RAW_BUCKET": "events"}, env_file=str(path))


def test_the_streams_own_prefix_is_not_for_unreadable_files():
    with pytest.raises(SettingsError, match="raw_streams"):
        loading.load({"RAW_BUCKET": "events", "DLQ_PREFIX": "raw_streams/dlq"}, env_file="")


@pytest.mark.parametrize("code", ["BadDigest", "IncompleteBody", "RequestTimeout", "", "400"])
def test_a_400_for_a_fault_on_the_way_is_tried_again(code):
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    assert type(store_error(ClientError(answer, "PutObject"))) is StoreUnavailable


def test_a_body_that_a_proxy_finds_too_large_is_one_objects_fault():
    answer = {"Error": {"Code": "413"}, "ResponseMetadata": {"HTTPStatusCode": 413}}
    assert type(store_error(ClientError(answer, "PutObject"))) is ObjectRefused


def test_a_head_answered_with_400_says_nothing_about_the_object():
    answer = {"Error": {"Code": "400"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    assert isinstance(store_error(ClientError(answer, "HeadObject")), StoreUnavailable)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"Code": "KMS.NotFoundException"}, StoreDenied),
        ({"Code": "KMS.DisabledException"}, StoreDenied),
        ({"Code": "KMS.KMSInvalidStateException"}, StoreDenied),
        ({"Code": "KMS.ThrottlingException"}, StoreUnavailable),
        ({"Code": "InvalidStorageClass"}, StoreDenied),
        ({"Code": "InvalidTag"}, StoreDenied),
        (
            {
                "Code": "InvalidArgument",
                "ArgumentName": "x-amz-server-side-encryption-aws-kms-key-id",
            },
            StoreDenied,
        ),
        ({"Code": "InvalidArgument", "ArgumentName": "x-amz-meta-first-id"}, ObjectRefused),
    ],
)
def test_a_400_about_key_class_or_tags_is_an_outage_and_not_one_objects_fault(error, kind):
    answer = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 400}}
    assert type(store_error(ClientError(answer, "PutObject"))) is kind


def test_a_pause_between_attempts_ends_with_the_time_for_attempts(counts):
    delivery = Delivery(None, "events", 1, counts)
    pausing = gevent.spawn(delivery.pause, 3600)
    gevent.idle()
    delivery.end_attempts(0)
    pausing.get(timeout=5)


def test_lines_left_out_are_counted_when_the_next_one_is_logged(caplog, monkeypatch):
    import logging

    now = [0.0]
    monkeypatch.setattr("estat.log.time.monotonic", lambda: now[0])
    seldom = Seldom(logging.getLogger("test"))
    for _ in range(5):
        seldom.warning("refused", "too_large")
    now[0] = 61.0
    seldom.warning("refused", "too_large")
    assert [record.left_out for record in caplog.records] == [0, 4]
