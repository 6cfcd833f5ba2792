"""Key, class, tags, owner and role reach the store, and only where they are asked for."""

import contextlib
import os
import subprocess
import sys

import pytest

from estat.config import loading
from estat.errors import ASSUME_ROLE, NoCredentials, StoreDenied
from estat.stores import Stores
from tests.conftest import every_s3
from tests.support import iam
from tests.support.eventually import eventually
from tests.support.sts import Sts
from tests.unit.batches import batch

BATCH = batch()
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OWNER = "123456789012"
ROLE = "arn:aws:iam::123456789012:role/writer"
OBJECTS = {
    "S3_KMS_KEY_ID": KEY,
    "S3_STORAGE_CLASS": "STANDARD_IA",
    "S3_OBJECT_TAGS": "team=web,path=a/b c",
}
FIELDS = (
    "x-amz-server-side-encryption",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-expected-bucket-owner",
    "x-amz-security-token",
)


@pytest.fixture
def through(endpoint, s3, monkeypatch):
    """Have the environment of a store whose requests go through the S3 that sees them."""
    for name, value in (endpoint.environ | {"AWS_ENDPOINT_URL_S3": s3.url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return s3


@pytest.fixture
def sts(monkeypatch):
    with Sts() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", running.url)
        yield running


def opened(bucket, raw_bucket="", **settings):
    environ = {"RAW_BUCKET": raw_bucket or bucket, "AWS_REGION": "us-east-1", "S3_TIMEOUT": "2s"}
    return Stores(loading.load(environ | settings, env_file="")).get(bucket)


def put(store, key=BATCH.key):
    store.put(key, BATCH.payload, BATCH.crc32, BATCH.content_type, BATCH.metadata)


def use_all(store):
    put(store)
    store.head(BATCH.key)
    store.get(BATCH.key)
    assert list(store.list("raw/")) == [BATCH.key]
    store.delete(BATCH.key)


def fields(attempt):
    return {name for name in attempt.headers if name.startswith(FIELDS)}


def signer(attempt):
    """Return the access key that a request was signed with."""
    return attempt.headers["authorization"].partition("Credential=")[2].partition("/")[0]


@pytest.mark.quick
def test_an_object_has_the_key_the_class_and_the_tags(through, bucket):
    store = opened(bucket.name, **OBJECTS)
    put(store)
    head = bucket.head(BATCH.key)
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY)
    assert head["BucketKeyEnabled"] is True
    assert head["StorageClass"] == "STANDARD_IA"
    assert bucket.tags(BATCH.key) == {"team": "web", "path": "a/b c"}
    assert store.lacking(BATCH.key) == {}


def test_what_an_object_lacks_of_the_settings_is_told(through, bucket):
    put(opened(bucket.name))
    lacking = opened(bucket.name, **OBJECTS).lacking(BATCH.key)
    assert lacking == {
        "S3_KMS_KEY_ID": "no encryption, no key",
        "S3_STORAGE_CLASS": "STANDARD",
        "S3_OBJECT_TAGS": "",
    }


@pytest.mark.parametrize("asked", [KEY, KEY.rpartition("/")[2], "alias/events"])
def test_a_key_is_known_again_by_its_id_its_arn_and_behind_an_alias(asked, through, bucket):
    put(opened(bucket.name, S3_KMS_KEY_ID=KEY))
    assert opened(bucket.name, S3_KMS_KEY_ID=asked).lacking(BATCH.key) == {}


def test_another_key_than_the_one_that_was_asked_for_is_told(through, bucket):
    put(opened(bucket.name, S3_KMS_KEY_ID=KEY))
    asked = KEY.replace("1234abcd", "ffffffff")
    lacking = opened(bucket.name, S3_KMS_KEY_ID=asked).lacking(BATCH.key)
    assert lacking == {"S3_KMS_KEY_ID": f"aws:kms, {KEY}"}


@pytest.mark.parametrize("asked", [KEY, "alias/events"])
def test_an_object_without_a_key_is_told_also_where_an_alias_was_asked_for(asked, through, bucket):
    through.strip(
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-bucket-key-enabled",
    )
    store = opened(bucket.name, S3_KMS_KEY_ID=asked)
    put(store)
    assert "SSEKMSKeyId" not in bucket.head(BATCH.key)
    assert store.lacking(BATCH.key) == {"S3_KMS_KEY_ID": "aws:kms, no key"}


def test_the_owner_goes_with_every_request(through, bucket):
    use_all(opened(bucket.name, S3_EXPECTED_BUCKET_OWNER=OWNER))
    attempts = through.attempts("*", prefix="")
    assert {attempt.method for attempt in attempts} == {"PUT", "HEAD", "GET", "DELETE"}
    assert {a.headers.get("x-amz-expected-bucket-owner") for a in attempts} == {OWNER}


@every_s3
def test_settings_that_are_not_given_send_nothing(through, bucket):
    use_all(opened(bucket.name))
    attempts = through.attempts("*", prefix="")
    assert len(attempts) == 5
    assert set().union(*map(fields, attempts)) == set()


def test_the_fallback_bucket_gets_none_of_it(through, bucket, sts):
    store = opened(
        bucket.name,
        raw_bucket="elsewhere",
        FALLBACK_BUCKET=bucket.name,
        S3_ROLE_ARN=ROLE,
        S3_EXPECTED_BUCKET_OWNER=OWNER,
        **OBJECTS,
    )
    put(store)
    (attempt,) = through.attempts("PUT")
    assert fields(attempt) == set()
    assert signer(attempt) == "test"
    assert sts.calls == []


def test_a_bucket_that_an_old_file_names_gets_what_the_settings_say_now(through, bucket, sts):
    store = opened(bucket.name, raw_bucket="elsewhere", S3_ROLE_ARN=ROLE, **OBJECTS)
    put(store)
    assert bucket.head(BATCH.key)["SSEKMSKeyId"] == KEY
    assert [signer(attempt) for attempt in through.attempts("PUT")] == sts.given


@pytest.mark.quick
def test_the_role_is_what_signs_and_is_asked_for_once(through, bucket, sts):
    store = opened(
        bucket.name, S3_ROLE_ARN=ROLE, S3_ROLE_EXTERNAL_ID="tenant/7", INSTANCE_ID="web-1"
    )
    use_all(store)
    attempts = through.attempts("*", prefix="")
    assert {signer(attempt) for attempt in attempts} == set(sts.given)
    assert {a.headers["x-amz-security-token"] for a in attempts} == {f"token-{sts.given[0]}"}
    (call,) = sts.calls
    assert (call["RoleArn"], call["ExternalId"]) == (ROLE, "tenant/7")
    assert call["RoleSessionName"] == "estat-web-1"


@pytest.mark.parametrize("fault", ["refuse", "500", "throttle", "reset", "404", "412", "501"])
def test_without_the_role_nothing_is_sent_and_later_it_goes_through(fault, through, bucket, sts):
    """What STS says is never taken for an answer about an object."""
    sts.fault = fault
    store = opened(bucket.name, S3_ROLE_ARN=ROLE)
    for ask in (lambda: put(store), lambda: store.head(BATCH.key)):
        with pytest.raises(NoCredentials, match="writer") as caught:
            ask()
        assert caught.value.operation == ASSUME_ROLE
        assert not caught.value.is_answer
        assert caught.value.is_busy == (fault in ("500", "501", "throttle", "reset"))
    assert through.attempts("*", prefix="") == []
    sts.heal()

    def stored():
        with contextlib.suppress(NoCredentials):
            put(store)
        return bucket.keys() == [BATCH.key]

    eventually(stored, 20, "the next fetch succeeds")


CUT_OFF = """
from gevent import monkey
monkey.patch_all()
import os, sys
import gevent
from estat.config import loading
from estat.stores import Stores

store = Stores(loading.load(dict(os.environ), env_file="")).get(os.environ["RAW_BUCKET"])

def attempt():
    try:
        with gevent.Timeout(0.5):
            return store.head("nothing")
    except gevent.Timeout:
        return "cut off"

first, second = gevent.spawn(attempt), gevent.spawn(attempt)
print(first.get(), second.get(), flush=True)
sys.stdin.readline()
print(attempt(), flush=True)
"""


def test_attempts_that_are_cut_off_while_sts_hangs_leave_the_next_one_free(through, bucket, sts):
    sts.fault = "hang"
    settings = {
        "RAW_BUCKET": bucket.name,
        "AWS_REGION": "us-east-1",
        "S3_ROLE_ARN": ROLE,
        "S3_TIMEOUT": "2m",
    }
    with subprocess.Popen(
        [sys.executable, "-c", CUT_OFF],
        env=os.environ | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "cut off cut off\n"
        sts.heal()
        assert child.communicate("\n", timeout=60)[0] == "None\n"


def test_moto_lets_only_the_role_write_and_only_with_the_external_id(moto, monkeypatch):
    bucket = moto.new_bucket()
    identity = iam.user_and_role(moto, "tenant-7")
    for name, value in (moto.environ | identity.environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    with iam.enforced(moto):
        with pytest.raises(StoreDenied, match="AccessDenied"):
            put(opened(bucket.name))
        with pytest.raises(StoreDenied, match="AccessDenied") as caught:
            put(opened(bucket.name, S3_ROLE_ARN=identity.role_arn, S3_ROLE_EXTERNAL_ID="no"))
        assert caught.value.operation == ASSUME_ROLE
        assert not caught.value.is_busy
        put(opened(bucket.name, S3_ROLE_ARN=identity.role_arn, S3_ROLE_EXTERNAL_ID="tenant-7"))
    assert bucket.keys() == [BATCH.key]
