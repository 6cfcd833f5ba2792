"""A PUT counts only when it is proven, and an object is replaced only as it was read."""

import os

import pytest

from estat.config import loading
from estat.disk import files, locks
from estat.errors import ObjectDamaged, ObjectExists, StoreUnavailable
from estat.stores import Stores
from estat.stores.directory import DirectoryStore
from tests.conftest import EVERY_S3
from tests.support.faulty_s3 import as_encrypted, as_s3_does
from tests.support.s3 import Endpoint
from tests.unit.batches import batch

BATCH = batch()


def opened(endpoint, url, bucket, **settings):
    with pytest.MonkeyPatch.context() as environ:
        for name, value in (endpoint.environ | {"AWS_ENDPOINT_URL_S3": url}).items():
            environ.setenv(name, value)
        given = {"RAW_BUCKET": bucket.name, "AWS_REGION": "us-east-1", "S3_TIMEOUT": "2s"}
        return Stores(loading.load(given | settings, env_file="")).get(bucket.name)


@pytest.fixture
def store(endpoint, bucket, s3):
    return opened(endpoint, s3.url, bucket)


@pytest.fixture(params=["directory", *EVERY_S3])
def each_store(request, tmp_path):
    """Return an empty store of each kind."""
    if request.param == "directory":
        return DirectoryStore(str(tmp_path / "bucket"))
    endpoint: Endpoint = request.getfixturevalue(request.param)
    return opened(endpoint, endpoint.url, endpoint.new_bucket())


def put(store, replaces=None, one=BATCH):
    return store.put(one.key, one.payload, one.crc32, one.content_type, one.metadata, replaces)


def rephrase(s3, etag, *more):
    """Have the store answer PUTs with this ETag, if it is not empty, and with more fields."""

    def rule(_, answer):
        others = [field for field in answer if field[0].lower() != "etag"]
        return [*others, *more, *([("ETag", etag)] if etag else [])]

    s3.answers(rule)


def md5_of_batch(bucket, store):
    put(store)
    etag = bucket.head(BATCH.key)["ETag"].strip('"')
    store.delete(BATCH.key)
    return etag


def test_an_answer_that_names_the_checksum_is_proof(store, s3):
    s3.answers(as_s3_does)
    assert put(store) is True
    assert len(s3.attempts("*")) == 1


@pytest.mark.parametrize("form", ['"{}"', "{}"])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_an_etag_that_is_the_md5_is_proof_however_it_is_written(store, s3, bucket, form, case):
    etag = md5_of_batch(bucket, store)
    rephrase(s3, form.format(case(etag)))
    assert put(store) is True
    assert s3.attempts("HEAD") == []


@pytest.mark.parametrize(
    ("etag", "more"),
    [
        ("", ()),
        ('"' + "0" * 32 + '"', ()),
        ('"' + "0" * 32 + '-2"', ()),
        ('W/"5f1c-62a"', ()),
        ("", [("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")]),
        ("", [("x-amz-checksum-sha256", "A" * 43 + "=")]),
    ],
)
def test_where_the_answer_proves_nothing_a_head_has_to(store, s3, etag, more):
    rephrase(s3, etag, *more)
    assert put(store) is False
    assert len(s3.attempts("HEAD")) == 1
    assert store.head(BATCH.key).whole


@pytest.mark.parametrize(
    ("fault", "method", "told"),
    [
        ("says_200", "PUT", "nothing is there"),
        ("says_202", "PUT", "nothing is there"),
        ("says_204", "PUT", "nothing is there"),
        ("web_page", "PUT", "nothing is there"),
        ("web_page", "*", "has 73 bytes of"),
        ("cut", "PUT", "has 60 bytes of"),
    ],
)
def test_a_yes_without_proof_is_no_yes(store, s3, fault, method, told):
    s3.fail(fault, method=method)
    with pytest.raises(StoreUnavailable, match=told):
        put(store)


@pytest.mark.parametrize("fault", ["wrong_crc", "flipped"])
def test_another_checksum_than_ours_is_no_proof_whatever_else_is_said(store, s3, fault):
    s3.fail(fault)
    with pytest.raises(ObjectDamaged, match="has the CRC-32"):
        put(store)


def test_an_object_of_our_length_without_our_metadata_is_not_ours(store, s3):
    s3.answers(as_encrypted)
    s3.strip("x-amz-meta-")  # noqa: B005 - no text
    with pytest.raises(StoreUnavailable, match="has not the metadata"):
        put(store)


@pytest.mark.parametrize(("fault", "told"), [("403", "HeadObject"), ("404", "nothing is there")])
def test_an_object_that_can_not_be_looked_up_is_not_proven(store, s3, fault, told):
    s3.answers(as_encrypted)
    s3.fail(fault, method="HEAD")
    with pytest.raises(StoreUnavailable, match=told):
        put(store)


def test_an_object_is_replaced_as_it_was_read_and_not_otherwise(each_store):
    put(each_store, one=batch(range(1, 4)))
    read = each_store.head(BATCH.key)
    with pytest.raises(ObjectExists):
        put(each_store)
    put(each_store, read.etag)
    assert each_store.get(BATCH.key) == BATCH.payload
    assert each_store.head(BATCH.key).metadata == BATCH.metadata | {
        "bytes": str(len(BATCH.payload))
    }


@pytest.mark.parametrize("each_store", ["directory", "moto", "ceph"], indirect=True)
@pytest.mark.parametrize("gone", [False, True])
def test_an_object_that_changed_since_it_was_read_stays(each_store, gone):
    put(each_store, one=batch(range(1, 4)))
    read = each_store.head(BATCH.key)
    each_store.delete(BATCH.key)
    if not gone:
        put(each_store)
    with pytest.raises(StoreUnavailable):
        put(each_store, read.etag, batch(range(1, 6)))
    assert (each_store.head(BATCH.key) is None) is gone
    if not gone:
        assert each_store.get(BATCH.key) == BATCH.payload


def test_a_store_that_compares_etags_without_quotes_is_asked_so(store, s3):
    put(store, one=batch(range(1, 4)))
    quoted = (412, "PreconditionFailed", "as Ceph's gateway does")
    s3.refuse(lambda headers: quoted if '"' in headers.get("if-match", "") else None)
    put(store, store.head(BATCH.key).etag)
    assert store.get(BATCH.key) == BATCH.payload
    assert [a.headers.get("if-match", "")[:1] for a in s3.attempts("PUT")][1] == '"'


def test_a_store_that_does_not_know_if_match_replaces_without(store, s3):
    put(store, one=batch(range(1, 4)))
    unknown = (501, "NotImplemented", "If-Match")
    s3.refuse(lambda headers: unknown if "if-match" in headers else None)
    put(store, store.head(BATCH.key).etag)
    assert store.get(BATCH.key) == BATCH.payload
    with pytest.raises(ObjectExists):
        put(store)


def test_without_conditional_puts_an_object_is_replaced_without_one(endpoint, bucket, s3):
    store = opened(endpoint, s3.url, bucket, S3_CONDITIONAL_PUT="false")
    put(store, one=batch(range(1, 4)))
    put(store, store.head(BATCH.key).etag)
    assert not any("if-match" in a.headers for a in s3.attempts("PUT"))
    assert store.get(BATCH.key) == BATCH.payload


def test_a_replacement_is_proven_as_well(store, s3):
    put(store, one=batch(range(1, 4)))
    read = store.head(BATCH.key)
    s3.fail("says_200")
    with pytest.raises(StoreUnavailable, match="did not"):
        put(store, read.etag)


def test_a_file_that_is_no_whole_gzip_has_no_metadata(tmp_path):
    store = DirectoryStore(str(tmp_path))
    put(store)
    for at in range(len(BATCH.payload)):
        (tmp_path / BATCH.key).write_bytes(BATCH.payload[:at])
        head = store.head(BATCH.key)
        assert head.metadata == {}
        assert not head.whole


def test_a_replacement_that_can_not_be_synced_stays_and_is_synced_before_it_counts(
    tmp_path, monkeypatch
):
    store = DirectoryStore(str(tmp_path))
    put(store, one=batch(range(1, 4)))
    read = store.head(BATCH.key)
    path = tmp_path / BATCH.key
    sync = files.sync_directory

    def fail(directory):
        if path.read_bytes() == BATCH.payload and directory == str(path.parent):
            raise OSError(5, "Input/output error")
        sync(directory)

    monkeypatch.setattr(files, "sync_directory", fail)
    with pytest.raises(StoreUnavailable):
        put(store, read.etag)
    assert path.read_bytes() == BATCH.payload
    with pytest.raises(StoreUnavailable):
        store.head(BATCH.key)
    monkeypatch.undo()
    assert store.head(BATCH.key).whole
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == [path.name]


def test_one_replaces_a_file_at_a_time_and_the_next_one_is_told_to_try_again(tmp_path):
    store = DirectoryStore(str(tmp_path))
    put(store, one=batch(range(1, 4)))
    read = store.head(BATCH.key)
    path = tmp_path / BATCH.key
    another = locks.lock(str(path))
    with pytest.raises(StoreUnavailable):
        put(store, read.etag)
    os.close(another)
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == [path.name]
    put(store, read.etag)
    assert path.read_bytes() == BATCH.payload
