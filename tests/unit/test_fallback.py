"""What a hand-over to FALLBACK_BUCKET makes of files that are bad themselves."""

import time
from pathlib import Path

from estat import config, dlq_file, ledger, metrics
from estat.breaker import Breaker
from estat.delivery import Delivery
from estat.dlq import PENDING, DeadLetterQueue
from estat.fallback import Fallback
from estat.leader import Leader
from estat.ledger import Ledger
from estat.metrics import Metrics
from estat.offload import Offload
from estat.stores import Stores
from tests.unit.batches import batch


def test_a_damaged_file_does_not_keep_the_others_from_being_handed_over(tmp_path):
    page = metrics.page()
    counts = Metrics(page.rows[1])
    books, dlq = Ledger(counts), DeadLetterQueue(f"{tmp_path}/dlq")
    dlq.create()
    for seq in (1, 2, 3):
        kept = batch(seq=seq)
        books.accept(kept.events)
        books.spill(kept.events, dlq.write(kept, dlq_file.pack(kept, "put_failed", "")))
    first, *_ = dlq.scan(PENDING, time.time()).due
    content = bytearray(Path(first.path).read_bytes())
    content[-10] ^= 1
    Path(first.path).write_bytes(content)

    bucket = f"file:{tmp_path}/fallback"
    stores = Stores(config.load({"RAW_BUCKET": "events"}, env_file=""))
    delivery = Delivery(stores, "events", 5, counts, Breaker(counts))
    Fallback(dlq, delivery, books, Leader(dlq.root), Offload(1), bucket).run(time.monotonic() + 20)
    terms = ledger.terms(page)
    assert (terms.handed_over, terms.in_dlq) == (2 * first.events, first.events)
    assert len(list((tmp_path / "fallback").rglob("*.jsonl.gz"))) == 2
