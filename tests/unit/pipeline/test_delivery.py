"""Exactly once under one key: what delivery does when the key is taken."""

import gevent
import pytest

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.errors import ObjectDamaged, ObjectExists, ObjectRefused, StoreDenied, StoreUnavailable
from estat.events import gzip, ids
from estat.pipeline.delivery import Delivery
from estat.stores.store import Head
from tests.unit.batches import batch, lines


class FakeStore:
    """A bucket in memory, with faults put in by hand."""

    def __init__(self, *, conditional=True):
        self.objects = {}
        self.conditional = conditional
        self.fault = None
        self.unasked = None
        self.puts = 0

    def put(self, key, body, crc32, content_type, metadata, replaces=None):
        self.puts += 1
        if self.fault:
            self.fault(key)
        if replaces is not None:
            if key not in self.objects or replaces != self.head(key).etag:
                raise StoreUnavailable("changed")
        elif self.conditional and key in self.objects:
            raise ObjectExists(key)
        self.objects[key] = (body, metadata | {"bytes": str(len(body))})
        return True

    def head(self, key):
        if self.unasked:
            raise self.unasked
        if key not in self.objects:
            return None
        body, metadata = self.objects[key]
        return Head(metadata, len(body), f'"{hash(body)}"')

    def get(self, key):
        return self.objects[key][0]


class FakeStores:
    def __init__(self, store):
        self.get = lambda bucket: store


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def row():
    return metrics.page().rows[1]


@pytest.fixture
def delivery(store, row):
    return Delivery(FakeStores(store), "events", 0.5, Metrics(row))


def stored(store):
    return sorted(
        line for body, _ in store.objects.values() for line in gzip.gunzip(body).splitlines(True)
    )


def keep(store, numbers, **kwargs):
    existing = batch(numbers, **kwargs)
    store.objects[existing.key] = (existing.payload, metadata_of(existing))


def metadata_of(existing):
    return existing.metadata | {"bytes": str(len(existing.payload))}


def split(numbers):
    return sorted(lines(numbers).splitlines(keepends=True))


def test_a_batch_is_put_once_with_its_ids_as_metadata(delivery, store):
    delivery.attempt(batch())
    assert store.objects[batch().key] == (batch().payload, metadata_of(batch()))


@pytest.mark.parametrize("there", [range(1, 11), range(1, 20)])
def test_a_taken_key_that_covers_the_batch_means_stored(delivery, store, there):
    keep(store, there)
    delivery.attempt(batch(range(1, 11)))
    assert stored(store) == split(there)


@pytest.mark.parametrize("recovered", [True, False])
@pytest.mark.parametrize("there", [range(1, 6), range(4, 7), [1, 2, 9, 10]])
def test_only_the_missing_ids_go_up_beside_an_object_with_fewer(delivery, store, there, recovered):
    keep(store, there)
    delivery.attempt(batch(range(1, 11)), recovered=recovered)
    assert stored(store) == split(range(1, 11))
    assert set(store.objects) == {batch().key, ids.rest_key(batch().key, 1)}


def test_rests_that_are_there_in_part_too_are_completed(delivery, store):
    keep(store, range(1, 4))
    rest = batch(range(4, 6))
    store.objects[ids.rest_key(rest.key, 1)] = (rest.payload, metadata_of(rest))
    delivery.attempt(batch(range(1, 11)))
    assert stored(store) == split(range(1, 11))
    assert ids.rest_key(batch().key, 2) in store.objects


def test_ids_are_compared_even_where_metadata_has_gaps(delivery, store):
    keep(store, [1, 2, 3, 10])
    delivery.attempt(batch(range(1, 11)))
    assert stored(store) == split(range(1, 11))


def test_a_recovered_batch_is_looked_up_first_where_the_store_replaces_objects(row):
    store = FakeStore(conditional=False)
    keep(store, range(1, 20))
    delivery = Delivery(FakeStores(store), "events", 0.5, Metrics(row))
    delivery.attempt(batch(range(1, 11)), recovered=True)
    assert stored(store) == split(range(1, 20))
    assert store.puts == 0


@pytest.mark.parametrize("operation", ["AssumeRole", "AssumeRoleWithWebIdentity", ""])
def test_a_key_is_not_taken_for_free_when_credentials_for_the_question_were_refused(row, operation):
    store = FakeStore(conditional=False)
    keep(store, range(1, 20))
    delivery = Delivery(FakeStores(store), "events", 0.5, Metrics(row))
    store.unasked = StoreDenied("STS says no", operation)
    with pytest.raises(StoreDenied, match="STS says no"):
        delivery.attempt(batch(range(1, 11)), recovered=True)
    assert stored(store) == split(range(1, 20))


def test_a_key_may_be_free_when_the_store_itself_refuses_to_tell(row):
    store = FakeStore()
    delivery = Delivery(FakeStores(store), "events", 0.5, Metrics(row))
    store.unasked = StoreDenied("403", "HeadObject")
    delivery.attempt(batch(range(1, 11)), recovered=True)
    assert stored(store) == split(range(1, 11))


def test_objects_of_others_under_our_key_are_neither_replaced_nor_taken_for_ours(delivery, store):
    store.objects[batch().key] = (gzip.gzip(b"something else\n"), {})
    with pytest.raises(StoreDenied):
        delivery.attempt(batch())
    assert store.objects[batch().key][0] == gzip.gzip(b"something else\n")


def test_an_attempt_that_hangs_ends_at_its_deadline_and_is_counted(delivery, store, row):
    store.fault = lambda key: gevent.sleep(60)
    with pytest.raises(StoreUnavailable, match="no answer"):
        delivery.attempt(batch())
    assert row.cells[metrics.PUT_ERRORS] == 1


@pytest.mark.parametrize("error", [FileNotFoundError("token"), KeyError("x"), MemoryError()])
def test_whatever_a_store_raises_is_an_outage_and_the_breaker_hears_of_it(store, row, error):
    def fail(key):
        raise error

    store.fault = fail
    delivery = Delivery(FakeStores(store), "events", 0.5, Metrics(row))
    for failures in (1, 2, 3):
        with pytest.raises(StoreUnavailable, match=type(error).__name__):
            delivery.attempt(batch())
        assert row.cells[metrics.PUT_ERRORS] == failures
    assert delivery.breaker.open


def test_attempts_end_when_the_drain_says_so(store, row):
    delivery = Delivery(FakeStores(store), "events", 60, Metrics(row))
    started = gevent.event.Event()

    def hang(key):
        started.set()
        gevent.sleep(60)

    store.fault = hang
    attempt = gevent.spawn(delivery.attempt, batch())
    started.wait(5)
    delivery.end_attempts(0)
    with pytest.raises(StoreUnavailable):
        attempt.get(timeout=5)
    assert delivery.over
    with pytest.raises(StoreUnavailable, match="no time left"):
        delivery.attempt(batch())


def test_a_refused_object_says_nothing_about_the_store(delivery, store):
    def refuse(key):
        raise ObjectRefused(key)

    store.fault = refuse
    for _ in range(5):
        with pytest.raises(ObjectRefused):
            delivery.attempt(batch())
    assert not delivery.breaker.open


def test_a_store_that_refuses_every_batch_is_down(delivery, store):
    def refuse(key):
        raise ObjectRefused(key)

    store.fault = refuse
    for seq in (1, 2, 3):
        with pytest.raises(ObjectRefused):
            delivery.attempt(batch(seq=seq))
    assert delivery.breaker.open


def test_a_store_that_refuses_an_object_and_the_question_for_it_is_down(delivery, store):
    def refuse(key):
        raise ObjectRefused(key)

    store.fault = refuse
    store.unasked = StoreUnavailable("400", "HeadObject", "400")
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="nor does the store answer"):
            delivery.attempt(batch())
    assert delivery.breaker.open


def test_a_streams_record_is_stored_as_plain_json(delivery, store):
    from dataclasses import replace

    record = replace(batch(), key="raw_streams/x.json", events=0, payload=gzip.gzip(b'{"a":1}'))
    delivery.attempt(record)
    delivery.attempt(record)
    assert store.objects["raw_streams/x.json"][0] == b'{"a":1}'


def cut(store, key, length, *, metadata=None):
    """Keep only the first bytes of an object, as a store does that lies or a disk that does."""
    body, described = store.objects[key]
    store.objects[key] = (body[:length], described if metadata is None else metadata)


@pytest.mark.parametrize("recovered", [True, False])
@pytest.mark.parametrize("length", [0, 1, 60, -9, -1])
def test_an_object_that_is_cut_off_is_replaced_by_its_lines_and_the_batchs(
    delivery, store, length, recovered
):
    keep(store, range(1, 11))
    cut(store, batch().key, length)
    delivery.attempt(batch(range(1, 11)), recovered=recovered)
    assert stored(store) == split(range(1, 11))
    body, metadata = store.objects[batch().key]
    assert metadata["bytes"] == str(len(body))
    assert (metadata["first-id"][-2:], metadata["last-id"][-3:]) == ("-1", "-10")


def test_the_replacement_has_the_ids_that_only_the_cut_object_had(delivery, store):
    keep(store, range(1, 21))
    cut(store, batch().key, -1)
    delivery.attempt(batch(range(5, 11)))
    assert stored(store) == split(range(1, 21))
    assert store.objects[batch().key][1]["events"] == "20"


def test_an_object_from_before_that_names_no_length_is_read(delivery, store):
    keep(store, range(1, 11))
    cut(store, batch().key, 60, metadata=batch(range(1, 11)).metadata)
    delivery.attempt(batch(range(1, 11)))
    assert stored(store) == split(range(1, 11))


def test_a_rest_that_is_cut_off_is_replaced_too(delivery, store):
    keep(store, range(1, 4))
    rest = batch(range(4, 9))
    key = ids.rest_key(rest.key, 1)
    store.objects[key] = (rest.payload[:-1], metadata_of(rest))
    delivery.attempt(batch(range(1, 11)))
    assert stored(store) == split(range(1, 11))
    assert set(store.objects) == {rest.key, key}


def test_a_cut_object_that_changes_meanwhile_is_looked_at_again_by_the_next_attempt(
    delivery, store
):
    keep(store, range(1, 11))
    cut(store, batch().key, 60)

    def change(key):
        if store.puts == 2:
            keep(store, range(1, 21))

    store.fault = change
    with pytest.raises(StoreUnavailable, match="changed"):
        delivery.attempt(batch(range(1, 11)))
    assert stored(store) == split(range(1, 21))
    delivery.attempt(batch(range(1, 11)))
    assert stored(store) == split(range(1, 21))


def test_a_rest_of_a_recovered_batch_replaces_none_that_has_more_ids(row):
    store = FakeStore(conditional=False)
    keep(store, range(1, 4))
    rest = batch(range(4, 11))
    store.objects[ids.rest_key(rest.key, 1)] = (rest.payload, metadata_of(rest))
    delivery = Delivery(FakeStores(store), "events", 0.5, Metrics(row))
    delivery.attempt(batch(range(1, 6)), recovered=True)
    assert stored(store) == split(range(1, 11))
    assert store.puts == 0


def test_what_the_store_itself_calls_damaged_is_read_before_it_counts(delivery, store):
    def damage(key):
        body = batch(range(1, 11)).payload
        store.objects[key] = (body[:-1] + b"!", metadata_of(batch(range(1, 11))))
        store.fault = None
        raise ObjectDamaged(key)

    store.fault = damage
    with pytest.raises(StoreUnavailable):
        delivery.attempt(batch(range(1, 11)))
    delivery.attempt(batch(range(1, 11)))
    assert stored(store) == split(range(1, 11))


FILE = b"bytes that nobody can read" * 10


@pytest.mark.parametrize("length", range(0, len(FILE), 10))
def test_a_file_that_is_cut_off_is_replaced(delivery, store, length):
    store.objects["raw_dlq/x"] = (FILE[:length], {"bytes": str(len(FILE))})
    delivery.put_file("events", "raw_dlq/x", FILE)
    assert store.objects["raw_dlq/x"][0] == FILE


def test_a_file_that_is_there_stays(delivery, store):
    delivery.put_file("events", "raw_dlq/x", FILE)
    store.objects["raw_dlq/x"] = (FILE, {})
    delivery.put_file("events", "raw_dlq/x", FILE)
    assert store.objects["raw_dlq/x"] == (FILE, {})


def test_a_file_takes_the_place_of_nothing_else(delivery, store):
    store.objects["raw_dlq/x"] = (b"something else", {})
    with pytest.raises(ObjectRefused):
        delivery.put_file("events", "raw_dlq/x", FILE)
    assert store.objects["raw_dlq/x"] == (b"something else", {})
