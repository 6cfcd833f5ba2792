"""What is told to write in place of a wrong value."""

from pathlib import Path

import pytest

from tests.unit.config.test_loading import problems

HOME = Path.home()


@pytest.mark.parametrize(
    ("name", "wrong", "meant"),
    [
        ("RAW_BUCKET", "s3://b/raw", "b RAW_PREFIX=raw/"),
        ("RAW_BUCKET", "events/raw/x/", "events RAW_PREFIX=raw/x/"),
        ("RAW_BUCKET", "arn:aws:s3:::events", "events"),
        ("RAW_BUCKET", "https://events.s3.eu-central-1.amazonaws.com/", "events"),
        ("RAW_BUCKET", "My_Events", "my-events"),
        ("RAW_BUCKET", "'events'", "events"),
        ("RAW_BUCKET", "./data", "file:./data"),
        ("RAW_BUCKET", "file:~/data", f"file:{HOME}/data"),
        ("FALLBACK_BUCKET", "s3://other/x", "other"),
        ("RAW_PREFIX", "s3://events/a//b", "a/b"),
        ("HTTP_ADDR", "8080", ":8080"),
        ("HTTP_ADDR", "*:8080", ":8080"),
        ("HTTP_ADDR", "localhost", "localhost:8080"),
        ("HTTP_ADDR", "http://127.0.0.1:9000/collect", "127.0.0.1:9000"),
        ("HTTP_ADDR", "::1:9000", "[::1]:9000"),
        ("FLUSH_INTERVAL", "120", "120s"),
        ("FLUSH_INTERVAL", "2 minutes", "2m"),
        ("FLUSH_INTERVAL", '"5s"', "5s"),
        ("FLUSH_INTERVAL", "5s # soon", "5s"),
        ("STORED_INTERVAL", "250", "250ms"),
        ("READ_TIMEOUT", "500 milliseconds", "500ms"),
        ("BATCH_BYTES", "8M", "8MiB"),
        ("BATCH_BYTES", "8mb", "8MB"),
        ("DLQ_MAX_SIZE_BYTES", "18,000,000,000", "18000000000"),
        ("BATCH_SIZE", "5_000", "5000"),
        ("S3_CONDITIONAL_PUT", "yes", "true"),
        ("RECEIPTS", "off", "false"),
        ("DURABILITY", "journald", "journal"),
        ("LOG_LEVEL", "WARN", "warning"),
        ("DLQ_OVERFLOW", "drop-oldest", "drop_oldest"),
        ("PARTITION_TZ", "seoul", "Asia/Seoul"),
        ("PARTITION_TZ", "New York", "America/New_York"),
        ("TRUSTED_PROXIES", "10.1.2.3/8; fd00::1/8", "10.0.0.0/8,fd00::/8"),
        (
            "ALLOWED_ORIGINS",
            "https://a.example/, https://b.example/x",
            "https://a.example,https://b.example",
        ),
        ("CAPTURE_HEADERS", "User_Agent", "User-Agent"),
        ("AWS_REGION", "EU Central-1", "eu-central-1"),
        ("S3_EXPECTED_BUCKET_OWNER", "1234-5678-9012", "123456789012"),
        ("S3_OBJECT_TAGS", "team=web; env=prod", "team=web,env=prod"),
        ("INSTANCE_ID", "web 1", "web-1"),
        ("FALLBACK_CHARSET", "euc_kr", "euc-kr"),
        ("DLQ_DIR", "~/dlq", f"{HOME}/dlq"),
        ("DLQ_DIR", "file:/var/dlq", "/var/dlq"),
        ("DLQ_DIR", "'/var/dlq'", "/var/dlq"),
        ("DLQ_DIR", "/var/dlq;", "/var/dlq"),
        ("DLQ_DIR", "/var/dlq RAW_PREFIX=raw", "/var/dlq"),
        ("RAW_BUCKET", "events RAW_PREFIX=raw/", "events"),
    ],
)
def test_a_common_mistake_is_told_with_what_is_meant(name: str, wrong: str, meant: str) -> None:
    (problem,) = problems(**{name: wrong})
    assert problem.startswith(f"{name}={wrong!r} is not valid; it must be ")
    assert problem.endswith(f"; perhaps you mean {name}={meant}")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("RAW_BUCKET", "file:"),
        ("RAW_BUCKET", "events--euw1-az1--x-s3"),
        ("HTTP_ADDR", "localhost:99999"),
        ("FLUSH_INTERVAL", "3 months"),
        ("FLUSH_INTERVAL", "1h30m"),
        ("FLUSH_INTERVAL", "2h"),
        ("WEB_CONCURRENCY", "auto"),
        ("DURABILITY", "paper"),
        ("PARTITION_TZ", "Mars/Olympus"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("DLQ_DIR", "s3://events/dlq"),
    ],
)
def test_where_nobody_knows_what_is_meant_nothing_is_told(name: str, wrong: str) -> None:
    (problem,) = problems(**{name: wrong})
    assert problem.startswith(f"{name}={wrong!r} is not valid; it must be ")
    assert "perhaps" not in problem


@pytest.mark.parametrize("wrong", ['"hunter2"', "hunter2 is no key"])
def test_of_a_secret_only_what_is_wrong_around_it_is_told(wrong: str) -> None:
    (problem,) = problems(WRITE_KEYS=wrong)
    assert "hunter2" not in problem
    assert problem.endswith("; leave out quotes, blanks and comments")
