"""What a hand-over to FALLBACK_BUCKET makes of files that are bad themselves."""

import time
from pathlib import Path

import pytest

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.config import loading
from estat.disk import dlq_file
from estat.disk.dlq import PENDING, Claim, DeadLetterQueue
from estat.disk.leader import Leader
from estat.pipeline.breaker import Breaker
from estat.pipeline.delivery import Delivery
from estat.pipeline.handover import Handover
from estat.stores import Stores
from estat.threads import Offload
from tests.unit.batches import batch


@pytest.fixture
def left(tmp_path):
    """Three batches in the DLQ, in the books of a page of their own."""
    page = metrics.page()
    counts = Metrics(page.rows[1])
    books, dlq = Ledger(counts), DeadLetterQueue(f"{tmp_path}/dlq")
    dlq.create()
    for seq in (1, 2, 3):
        kept = batch(seq=seq)
        books.accept(kept.events)
        books.spill(kept.events, dlq.write(kept, dlq_file.pack(kept, "put_failed", "")))
    return page, counts, books, dlq


def check_the_others_are_handed_over(left, tmp_path):
    page, counts, books, dlq = left
    first, *_ = dlq.scan(PENDING, time.time()).due
    bucket = f"file:{tmp_path}/fallback"
    settings = loading.load({"RAW_BUCKET": "events", "FALLBACK_BUCKET": bucket}, env_file="")
    stores = Stores(settings)
    delivery = Delivery(stores, "events", 5, counts, Breaker(counts))
    fallback = Handover(dlq, delivery, books, Leader(dlq.root), Offload(1), stores, bucket)
    fallback.run(time.monotonic() + 20)
    terms = ledger.terms(page)
    assert (terms.handed_over, terms.in_dlq) == (2 * first.events, first.events)
    assert len(list((tmp_path / "fallback").rglob("*.jsonl.gz"))) == 2


def test_a_damaged_file_does_not_keep_the_others_from_being_handed_over(left, tmp_path):
    *_, dlq = left
    first, *_ = dlq.scan(PENDING, time.time()).due
    content = bytearray(Path(first.path).read_bytes())
    content[-10] ^= 1
    Path(first.path).write_bytes(content)
    check_the_others_are_handed_over(left, tmp_path)


def test_nor_does_one_that_raises_what_nobody_expects(left, tmp_path, monkeypatch):
    *_, dlq = left
    first, *_ = dlq.scan(PENDING, time.time()).due
    read = Claim.read

    def fail(claim):
        if claim.entry.name == first.name:
            raise KeyError("whatever")
        return read(claim)

    monkeypatch.setattr(Claim, "read", fail)
    check_the_others_are_handed_over(left, tmp_path)
