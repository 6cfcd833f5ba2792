"""The OpenAPI description says what the code does, no more and no less."""

import falcon
import falcon.inspect
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from estat.accounting import exposition, metrics
from estat.config import loading
from estat.config.settings import Settings
from estat.errors import REFUSALS, Refused
from estat.events import parser
from estat.pipeline.pipeline import Pipeline
from estat.web import openapi
from estat.web.app import create_app
from estat.web.collect import Collect

VARIANTS = [
    {},
    {"WRITE_KEYS": "web:k"},
    {"METRICS_ADDR": ":9090", "MAX_BATCH_EVENTS": "7"},
    {"EVENT_FORMAT": "raw", "WRITE_KEYS": "web:k", "RECEIPTS": "true"},
    {"EVENT_FORMAT": "raw", "WRITE_KEYS": "web:k", "DURABILITY": "stored", "RECEIPTS": "true"},
]


def load(tmp_path, **given: str) -> Settings:
    needed = {"RAW_BUCKET": f"file:{tmp_path}", "DLQ_DIR": str(tmp_path / "dlq")}
    return loading.load(needed | given, env_file="")


def routes(app: falcon.App) -> set[tuple[str, str]]:
    """Return path and method of everything that somebody wrote a responder for."""
    return {
        (route.path.replace(":path}", "}"), method.method.lower())
        for route in falcon.inspect.inspect_routes(app)
        for method in route.methods
        if not method.internal
    }


def described(document: openapi.Json) -> set[tuple[str, str]]:
    return {
        (path, method)
        for path, methods in document["paths"].items()
        for method in methods
        if method != "parameters"
    }


@pytest.mark.parametrize("given", VARIANTS)
def test_the_document_is_valid_openapi(given, tmp_path):
    OpenAPIV31SpecValidator(openapi.document(load(tmp_path, **given))).validate()


@pytest.mark.parametrize("given", VARIANTS)
def test_every_route_is_described_and_nothing_else(given, tmp_path):
    settings = load(tmp_path, **given)
    pipeline = Pipeline(settings, metrics.page(), 1, None)
    found = routes(create_app(pipeline, Collect(pipeline)))
    if settings.metrics_addr:
        found |= routes(create_app(pipeline))
    assert described(openapi.document(settings)) == found


def test_with_a_listener_for_metrics_the_public_one_has_only_intake_root_and_probes(tmp_path):
    pipeline = Pipeline(load(tmp_path, METRICS_ADDR=":9090"), metrics.page(), 1, None)
    public = {path for path, _ in routes(create_app(pipeline, Collect(pipeline)))}
    private = {path for path, _ in routes(create_app(pipeline))}
    assert not public & {"/metrics", "/openapi.json"}
    assert {"/", "/collect", "/health", "/ready"} <= public
    assert private == {"/metrics", "/openapi.json", "/health", "/ready"}


def test_every_status_of_a_refusal_is_described_and_nothing_else(tmp_path):
    responses = openapi.document(load(tmp_path))["paths"]["/collect"]["post"]["responses"]
    refused = {str(refusal.status) for refusal in REFUSALS.values()}
    assert set(responses) == refused | {"202", "500"}
    for refusal in REFUSALS.values():
        answer = responses[str(refusal.status)]
        assert refusal.title in answer["description"]
        assert not refusal.retry_after_seconds or "Retry-After" in answer["headers"]


def test_every_content_type_that_is_described_is_read_and_another_refused(tmp_path):
    content = openapi.document(load(tmp_path))["paths"]["/collect"]["post"]["requestBody"]
    intake = parser.Intake(100, 1)
    for name in content["content"]:
        assert intake.read(b"a=1" if "form" in name else b"{}", name).bodies
    with pytest.raises(Refused, match="unsupported_type"):
        intake.read(b"{}", "application/xml")


def test_the_limits_of_the_settings_are_described(tmp_path):
    settings = load(tmp_path, MAX_BATCH_EVENTS="7", MAX_BODY_SIZE="1234")
    document = openapi.document(settings)
    content = document["paths"]["/collect"]["post"]["requestBody"]["content"]
    _, array = content["application/json"]["schema"]["oneOf"]
    assert array["maxItems"] == 7
    assert "1234" in document["components"]["schemas"]["Event"]["description"]


def test_what_the_code_fixes_is_described_as_it_is(tmp_path):
    document = openapi.document(load(tmp_path))
    _, batch = document["components"]["schemas"]["Accepted"]["oneOf"]
    assert batch["properties"]["errors"]["maxItems"] == parser.MAX_ERRORS
    scrape = document["paths"]["/metrics"]["get"]["responses"]["200"]
    assert set(scrape["content"]) == {exposition.CONTENT_TYPE}


@pytest.mark.parametrize("durability", ["journal", "stored"])
def test_where_events_are_kept_is_described_where_it_may_be_told(durability, tmp_path):
    document = openapi.document(load(tmp_path, DURABILITY=durability))
    for answer in document["components"]["schemas"]["Accepted"]["oneOf"]:
        assert ("kept" in answer["properties"]) == (durability == "stored")


def test_a_server_that_takes_any_text_describes_nothing_else(tmp_path):
    document = openapi.document(load(tmp_path, EVENT_FORMAT="raw"))
    content = document["paths"]["/collect"]["post"]["requestBody"]["content"]
    assert set(content) == {"*/*"}


def test_write_keys_are_described_only_where_they_are_asked_for(tmp_path):
    document = openapi.document(load(tmp_path))
    assert "security" not in document["paths"]["/collect"]["post"]
    document = openapi.document(load(tmp_path, WRITE_KEYS="web:s3cret"))
    assert len(document["paths"]["/collect"]["post"]["security"]) == 3
    assert "s3cret" not in repr(document)
