"""Both stores keep the same promises: on a real directory, and on S3s, two of which verify."""

import errno
import os
from datetime import UTC, datetime, timedelta

import pytest

from estat.config import loading
from estat.disk import files
from estat.errors import ObjectExists, StoreDenied, StoreUnavailable
from estat.stores import Stores
from estat.stores.directory import DirectoryStore
from tests.conftest import EVERY_S3, every_s3
from tests.support.server import free_port
from tests.unit.batches import batch

pytestmark = pytest.mark.quick

BATCH = batch()

#: Marks tests that run against the S3s that verify keys and signatures.
verifying_s3 = pytest.mark.parametrize("endpoint", ["swift", "ceph"], indirect=True)


def opened(bucket):
    environ = {"RAW_BUCKET": bucket, "AWS_REGION": "us-east-1", "S3_TIMEOUT": "2s"}
    return Stores(loading.load(environ, env_file="")).get(bucket)


@pytest.fixture
def configure(monkeypatch):
    """Have an S3's address and keys in the environment, or others."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def put_into_environment(endpoint, **others):
        for name, value in (endpoint.environ | others).items():
            monkeypatch.setenv(name, value)

    return put_into_environment


@pytest.fixture
def directory(tmp_path):
    return opened(f"file:{tmp_path}/bucket")


@pytest.fixture(params=["directory", *EVERY_S3])
def store(request, configure):
    """Return an empty store of each kind."""
    if request.param == "directory":
        return request.getfixturevalue("directory")
    endpoint = request.getfixturevalue(request.param)
    configure(endpoint)
    return opened(endpoint.new_bucket().name)


def put(store, key=BATCH.key):
    store.put(key, BATCH.payload, BATCH.crc32, BATCH.content_type, BATCH.metadata)


def test_what_was_put_is_there_with_its_metadata(store):
    put(store)
    assert store.get(BATCH.key) == BATCH.payload
    assert store.head(BATCH.key).metadata == BATCH.metadata | {"bytes": str(len(BATCH.payload))}


def test_a_taken_key_is_never_replaced(store):
    put(store)
    with pytest.raises(ObjectExists):
        store.put(BATCH.key, b"other", 0x7FE16CE2, BATCH.content_type, {})
    assert store.get(BATCH.key) == BATCH.payload


def test_an_object_that_is_not_there_has_no_metadata(store):
    assert store.head("raw/nothing") is None


def test_a_deleted_object_is_gone_and_deleting_again_is_fine(store):
    put(store)
    store.delete(BATCH.key)
    store.delete(BATCH.key)
    assert store.head(BATCH.key) is None


def test_any_characters_may_be_in_a_key(store):
    key = "raw/a b+c%2F&=:~é/☃.gz"
    put(store, key)
    assert store.get(key) == BATCH.payload
    assert store.head(key).metadata == store.head(key).metadata | BATCH.metadata
    assert list(store.list("raw/")) == [key]


def test_keys_are_listed_in_order_from_a_given_one_on(store):
    keys = [f"raw/{number:02}" for number in range(25)]
    for key in [*reversed(keys), "rax/00"]:
        put(store, key)
    assert list(store.list("raw/")) == keys
    assert list(store.list("raw/", after="raw/03")) == keys[4:]


@every_s3
def test_a_missing_bucket_is_no_reason_to_try_again_at_once(endpoint, configure):
    configure(endpoint)
    with pytest.raises(StoreDenied, match="NoSuchBucket"):
        put(opened("no-such-bucket-here"))


def test_bytes_that_do_not_fit_their_checksum_are_refused_and_not_stored(swift, configure):
    configure(swift)
    bucket = swift.new_bucket()
    store = opened(bucket.name)
    with pytest.raises(StoreUnavailable, match="BadDigest"):
        store.put(BATCH.key, BATCH.payload, BATCH.crc32 ^ 1, BATCH.content_type, BATCH.metadata)
    assert bucket.keys() == []
    put(store)
    assert bucket.keys() == [BATCH.key]


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
@verifying_s3
def test_a_wrong_key_is_denied_and_the_reason_told(name, endpoint, bucket, configure):
    configure(endpoint, **{name: "wrong"})
    store = opened(bucket.name)
    with pytest.raises(StoreDenied, match=r"SignatureDoesNotMatch|InvalidAccessKeyId"):
        put(store)
    with pytest.raises(StoreDenied, match="403"):
        store.head(BATCH.key)
    assert bucket.keys() == []


@pytest.mark.parametrize("hours", [-1, 1])
@verifying_s3
def test_a_clock_that_is_wrong_is_worth_another_attempt(
    hours, endpoint, bucket, configure, monkeypatch
):
    configure(endpoint)
    store = opened(bucket.name)
    now = datetime.now(UTC) + timedelta(hours=hours)
    with monkeypatch.context() as clock:
        clock.setattr("botocore.auth.get_current_datetime", lambda *_, **__: now)
        with pytest.raises(StoreUnavailable, match="RequestTimeTooSkewed"):
            put(store)
    put(store)


def test_an_endpoint_that_does_not_listen_is_worth_another_attempt(moto, configure):
    configure(moto, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable):
        put(opened("events"))


def test_a_directory_that_can_not_be_written_is_worth_another_attempt(tmp_path):
    (tmp_path / "bucket").touch()
    with pytest.raises(StoreUnavailable):
        put(DirectoryStore(str(tmp_path / "bucket")))


def test_an_object_that_another_attempt_may_have_found_stays_and_is_synced_before_it_counts(
    tmp_path, monkeypatch
):
    store = DirectoryStore(str(tmp_path))
    path = tmp_path / BATCH.key

    def fail(directory):
        if path.exists() and directory == str(path.parent):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(directory)

    sync = files.sync_directory
    monkeypatch.setattr(files, "sync_directory", fail)
    for ask in (put, put, lambda store: store.head(BATCH.key)):
        with pytest.raises(StoreUnavailable):
            ask(store)
        assert path.exists()
    monkeypatch.undo()
    with pytest.raises(ObjectExists):
        put(store)
    assert store.head(BATCH.key).metadata["events"] == str(BATCH.events)


def test_a_directory_store_leaves_no_temporary_files(directory, tmp_path):
    put(directory)
    with pytest.raises(ObjectExists):
        put(directory)
    names = [name for _, _, found in os.walk(tmp_path) for name in found]
    assert names == [BATCH.key.rpartition("/")[2]]
