"""Valid settings by which events may be lost unheard: `estat check` tells them."""

import pytest

from estat.config import checks
from estat.text import hidden
from tests.unit.config.test_loading import load


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"ALLOWED_ORIGINS": "https://*.shop.example"},
            "https://*.shop.example and not https://shop.example",
        ),
        ({"ALLOWED_ORIGINS": "null,http://shop.example"}, "and not https://shop.example: pages"),
        ({"WRITE_KEYS": "web:hunter2"}, "WRITE_KEYS and does not show it; put ?key= into its URL"),
        ({"ACCEPTED_STATUS": "200"}, "beyond MAX_BODY_SIZE=16384; raise it"),
        ({"MAX_BATCH_EVENTS": "4001"}, "is above CHANNEL_SIZE=4000"),
        ({"QUEUE_BYTES": "1048575"}, "MAX_BATCH_BODY_SIZE=1048576 is above QUEUE_BYTES=1048575"),
        ({"KEEPALIVE": "60s"}, "KEEPALIVE=60s is not above 60s"),
        ({"KEEPALIVE": "5s", "TRUSTED_PROXIES": "10.0.0.0/8"}, "KEEPALIVE=5s"),
    ],
)
def test_a_setting_that_loses_is_told_with_what_to_do(given: dict[str, str], told: str) -> None:
    (sentence,) = checks.losing(load(**given))
    assert told in sentence
    assert hidden(sentence) == sentence


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ALLOWED_ORIGINS": "https://*.shop.example,https://shop.example"},
        {"ALLOWED_ORIGINS": "http://shop.example,https://shop.example"},
        {"ALLOWED_ORIGINS": "null,http://localhost,http://10.0.0.1,http://shop.example:8080"},
        {"ACCEPTED_STATUS": "200", "MAX_BODY_SIZE": "1MiB"},
        {"MAX_BATCH_EVENTS": "4001", "EVENT_FORMAT": "raw"},
        {"QUEUE_BYTES": "1MiB", "CHANNEL_SIZE": "1000"},
        {"KEEPALIVE": "61s"},
        {"KEEPALIVE": "5s", "TRUSTED_PROXIES": "0"},
    ],
)
def test_a_setting_that_loses_nothing_is_not_told(given: dict[str, str]) -> None:
    assert list(checks.losing(load(**given))) == []
