"""The settings of an S3 bucket: what is taken, and what is refused with which reason."""

import pytest

from estat.config import loading
from estat.config.parsers import BUCKET_SETTINGS
from tests.unit.config.test_loading import load, problems

KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY_ARN = f"arn:aws:kms:eu-central-1:123456789012:key/{KEY}"
ROLE = "arn:aws:iam::123456789012:role/path/estat-writer"
ALL = {
    "S3_KMS_KEY_ID": KEY_ARN,
    "S3_STORAGE_CLASS": "STANDARD_IA",
    "S3_OBJECT_TAGS": "team=web",
    "S3_EXPECTED_BUCKET_OWNER": "123456789012",
    "S3_ROLE_ARN": ROLE,
    "S3_ROLE_EXTERNAL_ID": "x-1",
}


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("S3_KMS_KEY_ID", KEY, KEY),
        ("S3_KMS_KEY_ID", "mrk-" + "0a" * 16, "mrk-" + "0a" * 16),
        ("S3_KMS_KEY_ID", "alias/team/events_1-a", "alias/team/events_1-a"),
        ("S3_KMS_KEY_ID", KEY_ARN, KEY_ARN),
        (
            "S3_KMS_KEY_ID",
            "arn:aws-cn:kms:cn-north-1:123456789012:alias/events",
            "arn:aws-cn:kms:cn-north-1:123456789012:alias/events",
        ),
        ("S3_STORAGE_CLASS", "intelligent_tiering", "INTELLIGENT_TIERING"),
        ("S3_OBJECT_TAGS", "team = web , path=a/b=c,empty=", ("team=web", "path=a/b=c", "empty=")),
        ("S3_OBJECT_TAGS", "Besitzer=Müller & Co".replace("&", "+"), ("Besitzer=Müller + Co",)),
        ("S3_OBJECT_TAGS", "k" * 128 + "=" + "v" * 256, ("k" * 128 + "=" + "v" * 256,)),
        ("S3_EXPECTED_BUCKET_OWNER", "012345678901", "012345678901"),
        ("S3_ROLE_ARN", ROLE, ROLE),
    ],
)
def test_what_aws_takes_is_taken(name, value, parsed):
    assert getattr(load(**{name: value}), name.lower()) == parsed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S3_KMS_KEY_ID", "my-key"),
        ("S3_KMS_KEY_ID", "alias/"),
        ("S3_KMS_KEY_ID", KEY.upper()),
        ("S3_KMS_KEY_ID", f"arn:aws:iam::123456789012:key/{KEY}"),
        ("S3_STORAGE_CLASS", "GLACIER"),
        ("S3_STORAGE_CLASS", "DEEP_ARCHIVE"),
        ("S3_STORAGE_CLASS", "REDUCED_REDUNDANCY"),
        ("S3_STORAGE_CLASS", "COLD"),
        ("S3_OBJECT_TAGS", "team"),
        ("S3_OBJECT_TAGS", "=web"),
        ("S3_OBJECT_TAGS", "team=web,"),
        ("S3_OBJECT_TAGS", "team=web,team=app"),
        ("S3_OBJECT_TAGS", "team=a&b"),
        ("S3_OBJECT_TAGS", "aws:team=web"),
        ("S3_OBJECT_TAGS", "k" * 129 + "=v"),
        ("S3_OBJECT_TAGS", "k=" + "v" * 257),
        ("S3_OBJECT_TAGS", ",".join(f"k{number}=v" for number in range(11))),
        ("S3_EXPECTED_BUCKET_OWNER", "1234-5678-9012"),
        ("S3_ROLE_ARN", "estat-writer"),
        ("S3_ROLE_ARN", "arn:aws:sts::123456789012:assumed-role/estat-writer/me"),
        ("S3_ROLE_EXTERNAL_ID", "x"),
        ("FALLBACK_BUCKET", "events--euw1-az1--x-s3"),
    ],
)
def test_what_aws_would_refuse_is_refused_at_start_with_what_is_valid(name, value):
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name}={value!r} is not valid; it must be ")


@pytest.mark.parametrize("name", BUCKET_SETTINGS)
def test_a_setting_of_a_bucket_is_refused_with_a_directory(name):
    found = problems(**{"RAW_BUCKET": "file:data", "S3_ROLE_ARN": ROLE, name: ALL[name]})
    assert any(line.startswith(f"{name}={ALL[name]!r} is for an S3 bucket") for line in found)


def test_an_external_id_without_a_role_is_refused():
    (problem,) = problems(S3_ROLE_EXTERNAL_ID="x-1")
    assert "needs S3_ROLE_ARN" in problem


def test_a_key_of_another_region_than_the_buckets_is_refused():
    (problem,) = problems(S3_KMS_KEY_ID=KEY_ARN, AWS_REGION="us-east-1")
    assert "another region" in problem
    assert load(S3_KMS_KEY_ID=KEY_ARN, AWS_REGION="eu-central-1").s3_kms_key_id == KEY_ARN


def test_what_is_in_force_is_shown_as_it_would_be_written():
    shown = loading.effective(load(**ALL))
    assert {name: shown[name] for name in BUCKET_SETTINGS} == ALL


def test_settings_without_some_are_as_if_those_were_not_set():
    assert load(**ALL).without(*BUCKET_SETTINGS) == load()
