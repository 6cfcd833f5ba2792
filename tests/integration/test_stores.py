"""Both stores keep the same promises, on a real directory and a real S3 protocol."""

import os

import pytest

from estat import config
from estat.errors import ObjectExists, StoreDenied, StoreUnavailable
from estat.stores import Stores
from estat.stores.directory import DirectoryStore
from tests.support.server import free_port
from tests.unit.batches import batch

BATCH = batch()


@pytest.fixture
def credentials(monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def opened(bucket):
    environ = {"RAW_BUCKET": bucket, "AWS_REGION": "us-east-1", "S3_TIMEOUT": "2s"}
    return Stores(config.load(environ, env_file="")).get(bucket)


@pytest.fixture
def directory(tmp_path):
    return opened(f"file:{tmp_path}/bucket")


@pytest.fixture
def s3(moto, credentials, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto.url)
    return opened(moto.new_bucket().name)


@pytest.fixture(params=["directory", "s3"])
def store(request):
    return request.getfixturevalue(request.param)


def put(store, key=BATCH.key):
    store.put(key, BATCH.payload, BATCH.crc32, BATCH.content_type, BATCH.metadata)


def test_what_was_put_is_there_with_its_metadata(store):
    put(store)
    assert store.get(BATCH.key) == BATCH.payload
    assert store.head(BATCH.key) == BATCH.metadata


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


def test_a_missing_bucket_is_no_reason_to_try_again_at_once(moto, credentials, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto.url)
    with pytest.raises(StoreDenied, match="NoSuchBucket"):
        put(opened("no-such-bucket-here"))


def test_an_endpoint_that_does_not_listen_is_worth_another_attempt(credentials, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable):
        put(opened("events"))


def test_a_directory_that_can_not_be_written_is_worth_another_attempt(tmp_path):
    (tmp_path / "bucket").touch()
    with pytest.raises(StoreUnavailable):
        put(DirectoryStore(str(tmp_path / "bucket")))


def test_a_directory_store_leaves_no_temporary_files(directory, tmp_path):
    put(directory)
    with pytest.raises(ObjectExists):
        put(directory)
    names = [name for _, _, found in os.walk(tmp_path) for name in found]
    assert names == [BATCH.key.rpartition("/")[2]]
