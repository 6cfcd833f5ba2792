"""Settings: parsed, bounded, all problems told together."""

import contextlib
import re

import pytest
from dotenv import dotenv_values

from estat.config import loading, parsers, reference
from estat.config.settings import Settings, declarations
from estat.errors import SettingsError
from estat.events.schema import Mismatch
from estat.text import hidden

MINIMAL = {"RAW_BUCKET": "events"}


def problems(**given: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        loading.load({**MINIMAL, **given}, env_file="")
    return caught.value.problems


def load(**given: str) -> Settings:
    return loading.load({**MINIMAL, **given}, env_file="")


def fed_back(settings: Settings) -> Settings:
    return loading.load(loading.effective(settings), env_file="")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"READ_TIMEOUT": "8s", "KEEPALIVE": "1h", "DLQ_MAX_AGE": "3650d", "DRAIN_DELAY": "0s"},
        {"READ_TIMEOUT": "333ms", "S3_TIMEOUT": "0.1s", "KEEPALIVE": "1.0000001m"},
        {"DLQ_MAX_AGE": "12345678.125s", "SHUTDOWN_TIMEOUT": "59m", "FLUSH_INTERVAL": "10ms"},
        {"S3_CONDITIONAL_PUT": "0", "DURABILITY": "FSYNC"},
        {"DLQ_MAX_SIZE_BYTES": "1000TiB", "QUEUE_BYTES": "1KiB", "RAW_PREFIX": "/a/b=c/"},
        {"RAW_BUCKET": "file:data, and more", "DLQ_DIR": "../dlq", "PARTITION_TZ": "Asia/Seoul"},
        {"S3_OBJECT_TAGS": "team = web, path=a/b=c,empty=", "S3_STORAGE_CLASS": "glacier_ir"},
        {"CAPTURE_HEADERS": "Referer, cookie", "ALLOWED_ORIGINS": "https://a.example, http://b:81"},
        {"TRUSTED_PROXIES": "10.0.0.0/8, fd00::/8", "CLIENT_IP_HEADER": "Forwarded"},
        {"TRUSTED_PROXIES": "0", "HTTP_ADDR": ":0", "METRICS_ADDR": "[::1]:9"},
    ],
)
def test_the_settings_as_they_are_logged_can_be_given_again(given):
    settings = load(**given)
    assert fed_back(settings) == settings


def test_every_duration_as_it_is_logged_can_be_given_again():
    for milliseconds in range(10, 4000):
        settings = load(FLUSH_INTERVAL=f"{milliseconds}ms")
        assert parsers.duration(settings.text("FLUSH_INTERVAL")) == settings.flush_interval


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("READ_TIMEOUT", "8s"),
        ("DLQ_MAX_AGE", "24h"),
        ("FLUSH_INTERVAL", "500ms"),
        ("DRAIN_DELAY", "0s"),
        ("S3_CONDITIONAL_PUT", "true"),
        ("KEEPALIVE", "1.5s"),
    ],
)
def test_a_setting_is_logged_as_people_write_it(name, text):
    assert loading.effective(load(**{name: text}))[name] == text


def test_the_established_defaults_hold():
    settings = load()
    assert (settings.max_body_size, settings.channel_size, settings.batch_size) == (
        16384,
        4000,
        5000,
    )
    assert (settings.flush_interval, settings.s3_timeout, settings.dlq_max_age) == (120, 3, 86400)
    assert settings.dlq_max_size_bytes == 18 * 10**9
    assert settings.http_addr == "0.0.0.0:8080"


def test_all_problems_are_told_together_with_variable_value_and_what_is_valid():
    found = problems(RAW_BUCKET="", BATCH_SIZE="many", FLUSH_INTERVAL="120")
    assert len(found) == 3
    assert "RAW_BUCKET is not set" in found[0]
    assert any("BATCH_SIZE='many'" in line and "whole number from 1" in line for line in found)
    assert any("FLUSH_INTERVAL='120'" in line and "120s" in line for line in found)


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("FLUSH_INTERVAL", "500ms", 0.5),
        ("DLQ_MAX_AGE", "24h", 86400),
        ("BATCH_BYTES", "8MiB", 8 * 2**20),
        ("DLQ_MAX_SIZE_BYTES", "18GB", 18 * 10**9),
        ("MAX_BODY_SIZE", "16384", 16384),
        ("HTTP_ADDR", "127.0.0.1:9", "127.0.0.1:9"),
        ("HTTP_ADDR", "[::]:8080", "[::]:8080"),
        ("RAW_PREFIX", "/a/b/", "a/b"),
        ("S3_CONDITIONAL_PUT", "FALSE", False),
        ("TRUSTED_PROXIES", "2", 2),
        ("CAPTURE_HEADERS", "Referer, cookie,referer", ("referer", "cookie")),
    ],
)
def test_durations_sizes_and_the_like_are_parsed(name, value, parsed):
    assert getattr(load(**{name: value}), name.lower()) == parsed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLUSH_INTERVAL", "0s"),
        ("MAX_BODY_SIZE", "-1"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "1.5"),
        ("HTTP_ADDR", "8080"),
        ("HTTP_ADDR", ":99999"),
        ("RAW_BUCKET", "Has_Capitals"),
        ("RAW_BUCKET", "s3://events"),
        ("RAW_PREFIX", "a//b"),
        ("PARTITION_TZ", "../../etc/passwd"),
        ("INSTANCE_ID", "under_score"),
        ("INSTANCE_ID", "x" * 49),
        ("DLQ_OVERFLOW", "drop_newest"),
        ("METRICS_ADDR", "9090"),
        ("S3_CONDITIONAL_PUT", "maybe"),
        ("IP_MODE", "mask"),
        ("EVENT_FORMAT", "xml"),
        ("CLIENT_IP_HEADER", "x-real-ip"),
        ("CAPTURE_HEADERS", "referer,"),
        ("CAPTURE_HEADERS", "refe rer"),
        ("CAPTURE_HEADERS", "x_custom"),
        ("CAPTURE_HEADERS", "r\u00e9f\u00e9rer"),
        *(
            ("CAPTURE_HEADERS", f"Referer,{n}")
            for n in ("body", "Write-Key", "query", "path", "ID")
        ),
        ("CAPTURE_HEADERS", ",".join(f"x-{n}" for n in range(21))),
    ],
)
def test_a_value_out_of_bounds_is_refused(name, value):
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name}={value!r} is not valid")


def test_settings_that_contradict_each_other_are_refused():
    found = problems(
        MAX_BODY_SIZE="2MiB",
        RAW_PREFIX="raw",
        DLQ_PREFIX="raw/dlq",
        DRAIN_DELAY="25s",
        SHUTDOWN_TIMEOUT="25s",
        FALLBACK_BUCKET="events",
    )
    names = ["MAX_BODY_SIZE", "DLQ_PREFIX", "FALLBACK_BUCKET", "DRAIN_DELAY"]
    assert [line.split("=")[0] for line in found] == names


HASH = {"IP_MODE": "hash", "IP_HASH_KEY": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"FALLBACK_CHARSET": "euc-kr", "EVENT_FORMAT": "raw"}, "FALLBACK_CHARSET is for"),
        ({"IP_MODE": "hash"}, "IP_MODE='hash' needs IP_HASH_KEY; .*16 characters"),
        (HASH | {"IP_HASH_KEY": "fifteen-letters"}, r"IP_HASH_KEY=\(hidden\) .*16 characters"),
        *(
            (given | {"CAPTURE_HEADERS": "referer,x-forwarded-for"}, "CAPTURE_.*'x-")
            for given in (HASH, {"IP_MODE": "truncate"}, {"IP_MODE": "drop"})
        ),
        (HASH | {"IP_MODE": "full"}, "IP_HASH_KEY is for IP_MODE=hash; IP_MODE='full' does not"),
        *(
            ({"CAPTURE_HEADERS": f"referer,{name}"}, f"CAPTURE_HEADERS.*credential.*{name.lower()}")
            for name in ("authorization", "Proxy-Authorization", "X-Write-Key")
        ),
        ({"TRUSTED_PROXIES": "0", "CLIENT_IP_HEADER": "forwarded"}, "CLIENT_IP_HEADER="),
        *(
            ({"HTTP_ADDR": ":8080", "METRICS_ADDR": address}, "METRICS_ADDR=")
            for address in (":8080", "127.0.0.1:8080", "[::1]:8080", ":0")
        ),
        ({"CAPTURE_WRITE_KEY_NAME": "true"}, "CAPTURE_WRITE_KEY_NAME=true needs WRITE_KEYS"),
        ({"RECEIPTS": "true", "DURABILITY": "memory"}, "RECEIPTS=true needs a journal; .*'memory'"),
        *(
            ({"REJECTED_PREFIX": prefix}, f"REJECTED_PREFIX='{prefix}'")
            for prefix in ("raw", "raw/x", "raw_streams", "raw_closed/x", "raw_dlq")
        ),
        ({"REJECTED_PREFIX": "a", "DLQ_PREFIX": "a/b"}, "REJECTED_PREFIX='a'"),
    ],
)
def test_what_can_not_be_is_told_in_one_sentence(given, told):
    (problem,) = problems(**given)
    assert re.match(told, problem)


@pytest.mark.parametrize(
    "given",
    [
        {"FALLBACK_CHARSET": "euc-kr", "EVENT_FORMAT": "raw", "CAPTURE_QUERY": "true"},
        {"CAPTURE_HEADERS": "x-forwarded-for"},
    ],
)
def test_what_is_nearly_a_contradiction_and_none_is_taken(given):
    assert load(**given)


def test_what_is_for_stored_answers_is_refused_with_another_durability():
    found = problems(STORED_INTERVAL="1s", STORED_STRICT="true")
    assert [line.partition(" needs ")[0] for line in found] == [
        "STORED_INTERVAL=1s",
        "STORED_STRICT=true",
    ]
    assert load(DURABILITY="stored", STORED_INTERVAL="1s").stored_interval == 1


def test_the_environment_wins_over_the_env_file(tmp_path):
    file = tmp_path / ".env"
    file.write_text("RAW_BUCKET=from-file\nBATCH_SIZE=7\n")
    settings = loading.load({"RAW_BUCKET": "from-environment"}, env_file=str(file))
    assert (settings.raw_bucket, settings.batch_size) == ("from-environment", 7)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("DLQ_DIR=${DATA}/dlq\n", ["DLQ_DIR"]),
        ("DLQ_DIR=${DATA}/dlq\nDATA=/data\n", ["DLQ_DIR"]),  # it stands too late
        ("DATA=/data\nDLQ_DIR=${DATA}/dlq\n", []),
        ("DLQ_DIR=${DATA:-/data}/dlq\n", []),
        ("DLQ_DIR=${GIVEN}/dlq\n", []),
        ("DLQ_DIR=/data\nDLQ_DIR=${DLQ_DIR}/dlq\n", []),
        ("DLQ_DIR=/dlq\nTEAM=a\nDLQ_DIR=/${TEAM}\n", []),
        ("INSTANCE_ID='abc${def'\nDLQ_PREFIX='a${b:c}'\n", []),  # no references
        ("RAW_PREFIX=${DATA}\n", []),  # the environment has another
    ],
)
def test_a_value_that_refers_to_what_is_not_set_is_told(text, told, tmp_path):
    file = tmp_path / ".env"
    file.write_text(text)
    found = []
    try:
        loading.load({**MINIMAL, "GIVEN": "/data", "RAW_PREFIX": "raw"}, env_file=str(file))
    except SettingsError as exc:
        found = [line for line in exc.problems if "refers with ${...}" in line]
    assert [line.split()[0] for line in found] == told


def test_a_directory_bucket_is_made_absolute_so_that_dlq_files_can_name_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert load(RAW_BUCKET="file:data").raw_bucket == f"file:{tmp_path}/data"


def test_the_example_file_sets_what_the_defaults_are(tmp_path):
    example = reference.files()["conf/estat.env.example"]
    file = tmp_path / "all.env"
    file.write_text(re.sub(r"(?m)^#(?=\w)", "", example))
    assert dotenv_values(file).keys() == declarations().keys()
    assert loading.load(MINIMAL, env_file=str(file)) == load()


@pytest.mark.parametrize("path", list(reference.files()))
def test_generated_references_agree_with_the_code(path, pytestconfig):
    assert (pytestconfig.rootpath / path).read_text() == reference.files()[path], "run: make docs"


def test_a_schema_is_read_at_start_and_told_by_its_file(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text('{"required":["a"]}')
    settings = load(EVENT_SCHEMA=str(file))
    file.write_text("no longer JSON")
    with pytest.raises(Mismatch):
        settings.event_schema.check({})
    assert loading.effective(settings)["EVENT_SCHEMA"] == str(file)
    file.write_text("{}")
    assert str(fed_back(settings).event_schema) == str(file)


def test_a_schema_that_can_not_be_used_is_told_with_all_other_problems(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text('{"type":"objekt"}')
    schema, size = sorted(problems(EVENT_SCHEMA=str(file), MAX_BODY_SIZE="x"))
    assert schema.startswith(f"EVENT_SCHEMA={str(file)!r} is not valid: ")
    assert "/type" in schema
    assert size.startswith("MAX_BODY_SIZE")


SECRET = "Zu8-geheim.halten"


@pytest.mark.parametrize(
    "given",
    [
        {"WRITE_KEYS": f"web:{SECRET}, other-key"},
        {"WRITE_KEY": SECRET},
        {"write keys": f"web:{SECRET}"},
        {"IP_HASH_KEY": SECRET},
        {"AWS_SECRET_ACCESS_KEY": SECRET},
        {"AWS_SECRET_ACCESS_KEY ": f" {SECRET} "},
        {"AWS_SESSION_TOKEN": SECRET},
        {"AWS_ENDPOINT_URL_STS": f"https://user:{SECRET}@sts.example"},
        {"HTTPS_PROXY": f"http://user:{SECRET.replace('.', '%2E')}@proxy:3128"},
        {"RAW_BUCKET": f"s3://user:{SECRET}@events"},
    ],
)
def test_a_secret_in_the_environment_is_hidden_from_then_on(given):
    with contextlib.suppress(SettingsError):
        loading.load({**MINIMAL, **given}, env_file="")
    assert SECRET not in hidden(f"it said: {SECRET}")
    assert hidden("DLQ_DIR=/tmp/dlq") == "DLQ_DIR=/tmp/dlq"


def test_the_settings_as_text_hold_no_secret():
    settings = load(WRITE_KEYS=f"web:{SECRET}", IP_HASH_KEY=SECRET, IP_MODE="hash")
    shown = f"{settings!r} {loading.effective(settings)}"
    assert SECRET not in shown
    assert str(settings.write_keys[0].digest) not in repr(settings)
