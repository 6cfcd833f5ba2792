"""What a hand-over to FALLBACK_BUCKET makes of files that are bad themselves."""

import time
from pathlib import Path

import pytest

from estat.disk.dlq import PENDING, Claim
from tests.support.parts import Parts, load
from tests.unit.batches import batch


@pytest.fixture
def worker(tmp_path):
    """A worker with three batches in the DLQ."""
    bucket = f"file:{tmp_path}/fallback"
    made = Parts(load(tmp_path, RAW_BUCKET="events", FALLBACK_BUCKET=bucket))
    made.dlq.create()
    for seq in (1, 2, 3):
        made.spill(batch(seq=seq))
    return made


def first_of(worker):
    return worker.dlq.scan(PENDING, time.time()).due[0]


def check_the_others_are_handed_over(worker, tmp_path):
    first = first_of(worker)
    worker.replayer.hand_over(worker.settings.fallback_bucket, time.monotonic() + 20)
    assert (worker.terms.handed_over, worker.terms.in_dlq) == (2 * first.events, first.events)
    assert len(list((tmp_path / "fallback").rglob("*.jsonl.gz"))) == 2


def test_a_damaged_file_does_not_keep_the_others_from_being_handed_over(worker, tmp_path):
    first = first_of(worker)
    content = bytearray(Path(first.path).read_bytes())
    content[-10] ^= 1
    Path(first.path).write_bytes(content)
    check_the_others_are_handed_over(worker, tmp_path)


def test_nor_does_one_that_raises_what_nobody_expects(worker, tmp_path, monkeypatch):
    first = first_of(worker)
    read = Claim.read

    def fail(claim):
        if claim.entry.name == first.name:
            raise KeyError("whatever")
        return read(claim)

    monkeypatch.setattr(Claim, "read", fail)
    check_the_others_are_handed_over(worker, tmp_path)
