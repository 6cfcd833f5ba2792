"""The browser client as it is served."""

import gzip
import importlib.resources

from estat.config import loading
from estat.web import resources

SMALL_BYTES = 3 * 1024


def client(**settings):
    return resources.browser_client(
        loading.load({"RAW_BUCKET": "file:data"} | settings, env_file="/dev/null")
    )


def test_the_client_is_under_3_kb_minified_and_gzipped():
    assert len(gzip.compress(client())) < SMALL_BYTES


def test_the_client_has_the_limits_of_the_server():
    found = client(MAX_BATCH_EVENTS="77", MAX_BATCH_BODY_SIZE="54321", MAX_BODY_SIZE="4321")
    for limit in (b"BATCH_EVENTS=77;", b"BATCH_BYTES=54321;", b"EVENT_BYTES=4321;"):
        assert found.count(limit) == 1


def test_the_limits_in_the_source_are_the_defaults():
    source = importlib.resources.files("estat.web").joinpath("static/estat.js").read_bytes()
    for limit in (b"BATCH_EVENTS = 1000;", b"BATCH_BYTES = 1048576;", b"EVENT_BYTES = 16384;"):
        assert source.count(limit) == 1
    settings = loading.load({"RAW_BUCKET": "file:data"}, env_file="/dev/null")
    assert settings.max_batch_events == 1000
    assert settings.max_batch_body_size == 1048576
    assert settings.max_body_size == 16384
