"""Names that are no settings: which are told, and which are somebody else's."""

import pytest

from estat.config import loading
from estat.config.settings import declarations


def told(file="", environ=(), tmp_path=None):
    env_file = ""
    if tmp_path:
        env_file = str(tmp_path / ".env")
        (tmp_path / ".env").write_text(file)
    return [str(name) for name in loading.unknown_names(dict.fromkeys(environ, "x"), env_file)]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("DURABILTY=fsync", "DURABILTY is no setting; did you mean DURABILITY?"),
        ("durability=fsync", "durability is no setting; did you mean DURABILITY?"),
        ("ESTAT_RAW_BUCKET=events", "ESTAT_RAW_BUCKET is no setting; did you mean RAW_BUCKET?"),
        ("DLQ_MAX_SIZE=1GB", "DLQ_MAX_SIZE is no setting; did you mean DLQ_MAX_SIZE_BYTES?"),
        ("QQQ=1", "QQQ is no setting"),
    ],
)
def test_a_name_in_the_file_that_is_no_setting_is_told_with_the_nearest(line, text, tmp_path):
    assert told(line, tmp_path=tmp_path) == [text]


@pytest.mark.parametrize(
    "line",
    [
        "DURABILITY=fsync",
        "AWS_ACCESS_KEY_ID=x",
        "AWS_REGIN=x",
        "GUNICORN_CMD_ARGS=--timeout 9",
        "TZ=UTC",
        "PYTHONUNBUFFERED=1",
        "https_proxy=http://proxy",
        "COMPOSE_PROJECT_NAME=estat",
        "PLACE=/srv\nDLQ_DIR=${PLACE}/dlq",
        "PLACE=/srv\nDLQ_DIR=${PLACE:-/tmp}/dlq",
        "DURABILTY",
    ],
)
def test_a_name_in_the_file_that_somebody_reads_is_not_told(line, tmp_path):
    assert told(line, tmp_path=tmp_path) == []


@pytest.mark.parametrize("name", ["DURABILTY", "DLQDIR", "HTTP_ADDRESS", "durability"])
def test_a_name_in_the_environment_that_is_nearly_a_settings_is_told(name):
    (text,) = told(environ=[name])
    assert text.startswith(f"{name} is no setting; did you mean ")


@pytest.mark.parametrize(
    "name",
    [
        "QQQ",
        "HTTP_PROXY",
        "APP_LOG_LEVEL",
        "S3_BUCKET",
        "AWS_REGIN",
        "EC2_INSTANCE_ID",
        "LOG_DIR",
        "WEB_PORT",
        "RUN_MODE",
        "DB_TIMEOUT",
        "BUCKET",
    ],
)
def test_other_names_in_the_environment_are_not_told(name):
    assert told(environ=[name]) == []


def test_a_name_in_both_is_told_once(tmp_path):
    assert len(told("DURABILTY=a", ["DURABILTY"], tmp_path)) == 1


def test_a_part_of_a_key_that_looks_like_a_name_is_not_shown(tmp_path):
    assert told("IP_HASH_KEY=abc\nMIIEvQIBADANBgkqhkiG9w0BAQE==\n", tmp_path=tmp_path) == []


def test_where_the_environment_gives_every_setting_the_file_does_not_count(tmp_path):
    assert told("DURABILTY=a", declarations(), tmp_path) == []
