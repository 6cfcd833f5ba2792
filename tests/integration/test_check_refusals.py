"""``estat check`` tells what the bucket refuses, why, and what to do about it.

What moto does not refuse, a proxy in front of it does, in the words of S3.
"""

import argparse

import pytest

from estat.cli import check
from tests.conftest import every_s3
from tests.support import iam
from tests.support.faulty_s3 import as_encrypted
from tests.support.server import DEFAULTS, free_port
from tests.support.sts import Sts
from tests.support.swift import Swift

KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
OWNER = "123456789012"
ROLE = f"arn:aws:iam::{OWNER}:role/writer"
DENIED = (403, "AccessDenied", "Access Denied")


@pytest.fixture
def environment(tmp_path, monkeypatch, endpoint, bucket):
    """Set what a process of ``estat check`` would find; more settings may follow."""
    monkeypatch.chdir(tmp_path)

    def put_into_environment(**settings):
        given = DEFAULTS | endpoint.environ | {"RAW_BUCKET": bucket.name, "DLQ_DIR": "dlq"}
        for name, value in (given | {"S3_TIMEOUT": "5s"} | settings).items():
            monkeypatch.setenv(name, value)

    return put_into_environment


@pytest.fixture
def checked(environment, capsys):
    """Run the check with settings; return its exit status and its lines."""

    def run(**settings):
        environment(**settings)
        code = check.run(argparse.Namespace(settings=False))
        return code, capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def sts():
    with Sts() as running:
        yield running


def failures(lines):
    return [line for line in lines if line.startswith("FAIL")]


@pytest.fixture
def failed(checked):
    """Run a check that finds one thing wrong; return the line that tells it."""

    def run(**settings):
        code, lines = checked(**settings)
        assert code == 1
        (line,) = failures(lines)
        return line

    return run


def header(name, answer):
    """Return a rule that refuses requests with a header field."""
    return lambda headers: answer if name in headers else None


@pytest.mark.quick
def test_all_that_was_asked_for_is_checked_to_be_there(checked, bucket, sts):
    code, lines = checked(
        S3_KMS_KEY_ID=KEY,
        S3_STORAGE_CLASS="GLACIER_IR",
        S3_OBJECT_TAGS="a=1,b=2",
        S3_EXPECTED_BUCKET_OWNER=OWNER,
        S3_ROLE_ARN=ROLE,
        AWS_ENDPOINT_URL_STS=sts.url,
    )
    assert code == 0, lines
    assert any(
        line.startswith("ok   credentials: from env, then S3_ROLE_ARN in ") for line in lines
    )
    assert f"ok   role: assumed {ROLE}" in lines
    assert "ok   bucket: it is as asked: S3_OBJECT_TAGS, S3_KMS_KEY_ID, S3_STORAGE_CLASS" in lines
    assert bucket.keys() == []


def test_without_these_settings_the_check_says_nothing_of_them(checked):
    code, lines = checked()
    assert code == 0
    assert not any("as asked" in line or "role" in line for line in lines)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("settings", "field", "answer", "told"),
    [
        (
            {"S3_KMS_KEY_ID": KEY},
            "x-amz-server-side-encryption",
            (400, "KMS.NotFoundException", f"Key '{KEY}' does not exist"),
            "the key must be in the bucket's region",
        ),
        (
            {"S3_KMS_KEY_ID": KEY},
            "x-amz-server-side-encryption",
            (400, "KMS.DisabledException", f"{KEY} is disabled."),
            "enable the key S3_KMS_KEY_ID",
        ),
        (
            {"S3_KMS_KEY_ID": KEY},
            "x-amz-server-side-encryption",
            (403, "AccessDenied", "User: me is not authorized to perform: kms:GenerateDataKey"),
            "grant kms:GenerateDataKey and kms:Decrypt",
        ),
        (
            {"S3_KMS_KEY_ID": KEY, "S3_OBJECT_TAGS": "a=1"},
            "x-amz-server-side-encryption",
            DENIED,
            "without S3_KMS_KEY_ID the bucket takes the object",
        ),
        (
            {"S3_OBJECT_TAGS": "a=1", "S3_KMS_KEY_ID": KEY},
            "x-amz-tagging",
            DENIED,
            "grant s3:PutObjectTagging",
        ),
        (
            {"S3_OBJECT_TAGS": "a=1"},
            "x-amz-tagging",
            (400, "InvalidTag", "The TagValue you have provided is invalid"),
            "change S3_OBJECT_TAGS",
        ),
        (
            {"S3_STORAGE_CLASS": "ONEZONE_IA"},
            "x-amz-storage-class",
            (400, "InvalidStorageClass", "The storage class you specified is not valid"),
            "set S3_STORAGE_CLASS to a class that the bucket has",
        ),
        (
            {"S3_STORAGE_CLASS": "ONEZONE_IA", "S3_OBJECT_TAGS": "a=1"},
            "authorization",
            DENIED,
            "also those that S3_OBJECT_TAGS, S3_STORAGE_CLASS want",
        ),
    ],
)
def test_a_refusal_is_told_with_what_to_do(settings, field, answer, told, failed, s3, bucket):
    s3.refuse(header(field, answer))
    line = failed(AWS_ENDPOINT_URL_S3=s3.url, **settings)
    assert answer[1] in line
    assert told in line
    assert bucket.keys() == [], "what was tried is removed again"


def test_a_bucket_of_another_owner_is_told_and_nothing_is_written_there(failed, s3, bucket):
    def owned_by_somebody_else(headers):
        return DENIED if "x-amz-expected-bucket-owner" in headers else None

    s3.refuse(owned_by_somebody_else)
    line = failed(
        AWS_ENDPOINT_URL_S3=s3.url,
        S3_EXPECTED_BUCKET_OWNER="999999999999",
        S3_OBJECT_TAGS="a=1",
        S3_KMS_KEY_ID=KEY,
    )
    assert "belongs to another account than S3_EXPECTED_BUCKET_OWNER=999999999999" in line
    puts = s3.attempts("PUT", prefix="")
    assert puts
    assert {attempt.outcome for attempt in puts} == {"AccessDenied"}


def test_a_store_that_takes_a_key_and_does_not_use_it_fails_the_check(checked, s3):
    s3.strip("x-amz-server-side-encryption", "x-amz-tagging")
    code, lines = checked(
        AWS_ENDPOINT_URL_S3=s3.url,
        S3_KMS_KEY_ID=KEY,
        S3_STORAGE_CLASS="STANDARD_IA",
        S3_OBJECT_TAGS="a=1",
    )
    assert code == 1
    (line,) = failures(lines)
    assert "asked for S3_KMS_KEY_ID, found no encryption" in line
    assert any(line.startswith("warn bucket: the store does not tell of S3_OB") for line in lines)
    assert "ok   bucket: it is as asked: S3_STORAGE_CLASS" in lines


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("refuse", "name who asks in the trust policy of S3_ROLE_ARN"),
        ("throttle", "STS is busy or away: try again"),
        ("503", "STS is busy or away: try again"),
        ("reset", "let the server reach STS over HTTPS"),
    ],
)
def test_a_role_that_can_not_be_assumed_is_told_with_what_to_do(fault, told, failed, sts):
    sts.fault = fault
    line = failed(S3_ROLE_ARN=ROLE, AWS_ENDPOINT_URL_STS=sts.url)
    assert line.startswith("FAIL role: ")
    assert ROLE in line
    assert told in line


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("refuse", "let the trust policy of AWS_ROLE_ARN name"),
        ("token", "renew the token in AWS_WEB_IDENTITY_TOKEN_FILE"),
        ("503", "STS is busy or away: try again"),
    ],
)
@pytest.mark.parametrize("role", [ROLE, ""])
def test_who_gets_no_credentials_by_web_identity_is_told_so(
    fault, told, role, failed, sts, tmp_path
):
    sts.web_fault = fault
    (tmp_path / "token").write_text("a.b.c")
    line = failed(
        S3_ROLE_ARN=role,
        AWS_ENDPOINT_URL_STS=sts.url,
        AWS_ACCESS_KEY_ID="",
        AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
        AWS_ROLE_ARN=f"{ROLE}-of-the-pod",
    )
    assert line.startswith("FAIL credentials: ")
    assert told in line
    assert ("that are to assume S3_ROLE_ARN are at fault, not that role" in line) == bool(role)


@pytest.mark.parametrize("role", [ROLE, ""])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("token", {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "token"}),
        ("token", {"AWS_WEB_IDENTITY_TOKEN_FILE": "token", "AWS_ROLE_ARN": ROLE}),
        ("helper", {"AWS_CONFIG_FILE": "config"}),
        ("broken", {"AWS_CONFIG_FILE": "broken"}),
    ],
)
def test_a_file_that_is_missing_or_wrong_on_the_way_to_credentials_is_named(
    name, given, role, failed, sts, tmp_path
):
    (tmp_path / "config").write_text("[default]\ncredential_process = ./helper\n")
    (tmp_path / "broken").write_text("no section\n")
    line = failed(
        S3_ROLE_ARN=role,
        AWS_ENDPOINT_URL_STS=sts.url,
        AWS_ACCESS_KEY_ID="",
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{sts.url}/credentials",
        **given,
    )
    assert line.startswith("FAIL credentials: ")
    assert name in line
    assert "check where they come from" in line


def test_an_endpoint_for_credentials_that_is_out_of_order_is_told(failed, sts):
    line = failed(
        S3_ROLE_ARN=ROLE,
        AWS_ENDPOINT_URL_STS=sts.url,
        AWS_ACCESS_KEY_ID="",
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{sts.url}/credentials",
    )
    assert line.startswith("FAIL credentials: ")
    assert "are at fault, not that role: check where they come from" in line
    assert sts.calls == []


@pytest.mark.parametrize(
    ("url", "told", "todo"),
    [
        ("http://127.0.0.1:{port}", "Connection refused", "the store can't be reached"),
        ("https://127.0.0.1:{moto}", "SSL", "the store can't be reached"),
        ("http://store.invalid:{port}", "can't be resolved", "no name server knows the store"),
    ],
)
def test_a_store_that_can_not_be_reached_is_told(url, told, todo, failed, moto):
    line = failed(AWS_ENDPOINT_URL_S3=url.format(port=free_port(), moto=moto.port))
    assert told in line
    assert todo in line
    assert "AWS_ENDPOINT_URL_S3" in line


def test_a_store_that_does_not_answer_in_time_is_told(failed, s3):
    s3.fail("hang")
    line = failed(AWS_ENDPOINT_URL_S3=s3.url, S3_TIMEOUT="200ms")
    assert "or not within S3_TIMEOUT" in line


def test_a_role_that_may_not_write_is_refused_by_moto_and_told(failed, moto):
    identity = iam.user_and_role(moto, "tenant-7", role_may="s3:GetObject")
    with iam.enforced(moto):
        line = failed(
            **identity.environ,
            S3_ROLE_ARN=identity.role_arn,
            S3_ROLE_EXTERNAL_ID="tenant-7",
            AWS_ENDPOINT_URL_STS=moto.url,
        )
    assert "the role's rights" in line


@pytest.mark.parametrize("fault", ["web_page", "says_200"])
def test_what_says_yes_to_everything_is_told_not_to_store(fault, failed, s3, bucket):
    s3.fail(fault, method="*")
    line = failed(AWS_ENDPOINT_URL_S3=s3.url)
    assert "the store said that it stored" in line
    assert "does not store what it is sent: check AWS_ENDPOINT_URL_S3" in line
    assert "grant" not in line
    assert bucket.keys() == []


def test_what_gives_back_something_else_is_told_not_to_store(failed, s3, bucket):
    s3.fail("web_page", method="GET")
    line = failed(AWS_ENDPOINT_URL_S3=s3.url)
    assert "what was read is not what was written" in line
    assert "grant" not in line
    assert bucket.keys() == []


def ignoring(*fields):
    return lambda s3: s3.strip(*fields)


def failing(kind, **how):
    return lambda s3: s3.fail(kind, **how)


def unproven(then):
    """Have a store's answers prove nothing, and something else be wrong."""

    def begin(s3):
        s3.answers(as_encrypted)
        then(s3)

    return begin


def without_checksums(s3):
    """Have a store take any checksum, as moto does, and neither name it nor an MD5."""
    s3.answers(as_encrypted)


def naming_another_checksum(s3):
    s3.answers(lambda _, answer: [*answer, ("x-amz-checksum-crc32", "AAAAAA==")])


def comparing_bare_etags(s3):
    """Have If-Match compared as Ceph's gateway does it."""

    def rule(headers):
        if headers.get("if-match", "").startswith('"'):
            return 412, "PreconditionFailed", "At least one of the pre-conditions did not hold"
        return None

    s3.refuse(rule)


#: What a store does, the status of the line that tells it, what it costs, and what to do.
LIES = [
    (failing("cut"), "FAIL", "sent again until it is whole", "look for a limit of sizes"),
    (failing("flipped"), "FAIL", "it keeps other bytes than", "look for what changes bodies"),
    (failing("wrong_crc"), "FAIL", "does not store what it is sent", "check AWS_ENDPOINT_URL_S3"),
    (naming_another_checksum, "FAIL", "each batch is sent twice", "leave x-amz-checksum-crc32"),
    (
        failing("400_page", method="*"),
        "FAIL",
        "what answers there is no S3",
        "check AWS_ENDPOINT_URL",
    ),
    (failing("400", method="*"), "FAIL", "(InvalidRequest)", "its message says why"),
    (failing("501"), "FAIL", "(NotImplemented)", "use a store that has"),
    (failing("web_page", method="HEAD"), "FAIL", "a HEAD tells of 73 bytes", "check AWS_ENDPOINT"),
    (failing("503", method="*"), "FAIL", "(SlowDown)", "is busy or out of order: try again"),
    (failing("lands_then_resets"), "FAIL", "can't be reached", "check the network"),
    (unproven(ignoring("x-amz-meta-")), "FAIL", "each batch is sent twice", "pass x-amz-meta-"),
    (
        unproven(failing("404", method="HEAD", times=2)),
        "FAIL",
        "a HEAD finds it only after",
        "twice",
    ),
    (failing("404", method="HEAD"), "FAIL", "a HEAD does not find it", "check AWS_ENDPOINT_URL_S3"),
    (failing("403", method="GET"), "FAIL", "can't read it back", "grant s3:GetObject"),
    (without_checksums, "warn", "each PUT costs a HEAD", "which proves"),
    (without_checksums, "warn", "it takes a wrong checksum", "send over https"),
    (ignoring("x-amz-meta-"), "warn", "estat audit reads every one", "pass x-amz-meta-"),
    (failing("404", method="HEAD", times=2), "warn", "a HEAD finds it only after", "sends again"),
    (ignoring("if-none-match"), "warn", "despite If-None-Match", "keep other writers away"),
    (ignoring("if-match"), "warn", "despite If-Match", "do not replay a copy"),
    (comparing_bare_etags, "ok", "less the quotes", "there is nothing to do"),
    (
        failing("lists_nothing", method="GET", key=lambda key: not key, times=2),
        "warn",
        "a listing names it only after",
        "audit what is long over",
    ),
    (failing("403", method="GET", key=lambda key: not key), "ok", "only estat audit", "ListBucket"),
]


@pytest.mark.parametrize(("lie", "status", "cost", "remedy"), LIES)
def test_each_way_in_which_a_store_lies_is_told_with_its_cost_and_what_to_do(
    lie, status, cost, remedy, checked, s3, bucket
):
    lie(s3)
    code, lines = checked(AWS_ENDPOINT_URL_S3=s3.url)
    told = [line for line in lines if cost in line]
    assert len(told) == 1, lines
    assert told[0].startswith(f"{status:<4} bucket: ")
    assert remedy in told[0]
    assert code == (status == "FAIL")
    assert (told == failures(lines)) == (status == "FAIL")
    assert bucket.keys() == [], "what was tried is removed again"


@every_s3
def test_of_a_store_that_does_not_lie_nothing_is_told(checked, endpoint, s3, bucket):
    code, lines = checked(AWS_ENDPOINT_URL_S3=s3.url)
    assert code == 0
    told = [line for line in lines if line.startswith("warn bucket: ")]
    # Swift passes over If-Match
    assert ["despite If-Match" in line for line in told] == [True] * (type(endpoint) is Swift)
    assert bucket.keys() == []


def test_conditions_that_are_switched_off_are_not_tried(checked, s3):
    s3.strip("if-none-match", "if-match")
    code, lines = checked(AWS_ENDPOINT_URL_S3=s3.url, S3_CONDITIONAL_PUT="false")
    assert (code, [line for line in lines if line.startswith("warn bucket: ")]) == (0, [])


def test_in_a_directory_nothing_lies(checked, tmp_path):
    code, lines = checked(RAW_BUCKET=f"file:{tmp_path}/bucket")
    assert (code, lines[-2:]) == (0, ["ok   bucket: read it back", "ok   bucket: removed it"])


def test_a_bucket_that_needs_a_head_and_refuses_it_is_told_the_right_that_lacks(failed, s3, bucket):
    s3.answers(as_encrypted)
    s3.fail("403", method="HEAD")
    line = failed(AWS_ENDPOINT_URL_S3=s3.url)
    assert "grant s3:GetObject" in line
