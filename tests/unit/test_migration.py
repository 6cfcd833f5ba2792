"""docs/migration.md names every setting and metric that there is, and those that must stay."""

import re

from estat.accounting import metrics
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

#: The established settings have a third cell, what to know.
SETTINGS = {row[0].strip("`"): row[1].strip("`") for row in rows(PAGE["Settings"])}
ESTABLISHED = {row[0].strip("`") for row in rows(PAGE["Settings"]) if len(row) == 3}

DEFAULTS = {
    name: "required" if declared.default is None else declared.default
    for name, declared in declarations().items()
}


def exposed():
    """Return the names of all metrics, those too that only appear with a setting."""
    families = re.findall(r"(?m)^# TYPE (\w+)", metrics.render(metrics.page()).decode())
    spare = {cell.name for cell in metrics._CELLS if cell.kind == "spare"}
    return {*families, *spare}


def test_the_established_settings_have_their_names_and_defaults():
    assert {name: DEFAULTS.get(name) for name in ESTABLISHED_SETTINGS} == ESTABLISHED_SETTINGS
    assert set(ESTABLISHED_SETTINGS) == ESTABLISHED


def test_the_page_has_every_setting_with_its_default():
    assert SETTINGS == DEFAULTS


def test_the_established_metrics_have_their_names():
    assert {row[0].strip("`") for row in rows(PAGE["Metrics"])} == ESTABLISHED_METRICS
    assert exposed() >= ESTABLISHED_METRICS


def test_the_page_has_every_metric():
    found = re.findall(r"`([a-z][a-z0-9_]*_[a-z0-9_]+)`", PAGE["Metrics"])
    named = set(found) - {"drop_oldest"}
    assert named == exposed()
