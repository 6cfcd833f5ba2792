"""docs/migration.md names the settings and metrics that must stay."""

import re

from estat.accounting import exposition, metrics
from estat.config.settings import declarations
from tests.support.page import rows, sections

#: What a Go server's environment and dashboards name: these must stay as they are.
ESTABLISHED_SETTINGS = {
    "AWS_REGION": "",
    "RAW_BUCKET": "required",
    "RAW_PREFIX": "raw",
    "DLQ_PREFIX": "raw_dlq",
    "HTTP_ADDR": ":8080",
    "MAX_BODY_SIZE": "16384",
    "CHANNEL_SIZE": "4000",
    "UPLOAD_QUEUE": "4",
    "BATCH_SIZE": "5000",
    "FLUSH_INTERVAL": "120s",
    "S3_TIMEOUT": "3s",
    "S3_APP_RETRIES": "2",
    "DLQ_DIR": "/tmp/dlq",
    "DLQ_MAX_AGE": "24h",
    "DLQ_MAX_SIZE_BYTES": "18GB",
}
ESTABLISHED_METRICS = {
    "http_requests_total",
    "http_requests_accepted_total",
    "http_requests_rejected_queue_full_total",
    "s3_events_stored_total",
    "s3_put_errors_total",
    "dlq_events_enqueued_total",
    "dlq_events_reuploaded_total",
    "dlq_events_dropped_total",
    "dlq_files_current",
}

PAGE = sections("docs/migration.md")

SETTINGS = {row[0].strip("`"): row[1].strip("`") for row in rows(PAGE["Settings"])}


def exposed():
    return set(re.findall(r"(?m)^# TYPE (\w+)", exposition.render(metrics.page()).decode()))


def test_the_established_settings_have_their_names_and_defaults():
    defaults = {
        name: "required" if declared.default is None else declared.default
        for name, declared in declarations().items()
    }
    assert {name: defaults.get(name) for name in ESTABLISHED_SETTINGS} == ESTABLISHED_SETTINGS
    assert SETTINGS == ESTABLISHED_SETTINGS


def test_the_established_metrics_have_their_names():
    assert {row[0].strip("`") for row in rows(PAGE["Metrics"])} == ESTABLISHED_METRICS
    assert exposed() >= ESTABLISHED_METRICS
