"""What is accepted always fits the disk, whatever becomes of it."""

import errno
import os

import pytest

from estat.accounting import metrics
from estat.disk.dlq_file import OVERHEAD_BYTES
from estat.errors import DiskError, Refused
from tests.support.disks import tmpfs
from tests.support.parts import Parts, load
from tests.unit.batches import batch

LIMIT = 10 * OVERHEAD_BYTES


def worker_at(path, limit=LIMIT, **given):
    worker = Parts(load(path, DLQ_MAX_SIZE_BYTES=str(limit), **given))
    worker.dlq.create()
    metrics.forget_process(worker.counts.row)  # as before each fork
    worker.admission.refresh()
    return worker


@pytest.fixture
def worker(tmp_path):
    return worker_at(tmp_path)


def refusal(worker, size_bytes):
    with pytest.raises(Refused) as caught:
        worker.admission.admit(size_bytes)
    return caught.value.reason


def fail(worker, number):
    worker.admission.failed(DiskError("write", "x", OSError(number, os.strerror(number))))


def test_what_memory_holds_counts_as_if_each_request_became_a_file(worker):
    for _ in range(4):
        worker.admission.admit(OVERHEAD_BYTES)
        worker.admission.expose(OVERHEAD_BYTES, files=1)
    assert refusal(worker, 2 * OVERHEAD_BYTES) == "dlq_full"
    assert worker.admission.full
    worker.admission.expose(-OVERHEAD_BYTES, files=-1)
    assert not worker.admission.full


def test_what_a_worker_took_beforehand_does_not_count_as_full(tmp_path):
    admission = worker_at(tmp_path, 1000 * OVERHEAD_BYTES).admission
    admission.expose(990 * OVERHEAD_BYTES)
    with pytest.raises(Refused):
        admission.admit(10 * OVERHEAD_BYTES)
    admission.expose(-2 * OVERHEAD_BYTES - 1)
    admission.admit(1)
    admission.expose(1, files=1)
    assert not admission.full
    admission.admit(10 * OVERHEAD_BYTES)


def test_journals_and_files_of_all_workers_count(worker):
    other = Parts(worker.settings, worker.page, slot=2)
    other.spill(batch())
    other.counts.count(metrics.JOURNAL_BYTES, 8 * OVERHEAD_BYTES)
    worker.admission.refresh()
    assert refusal(worker, OVERHEAD_BYTES) == "dlq_full"


def test_a_disk_that_fails_closes_admission_until_a_file_can_be_written_there(worker, tmp_path):
    fail(worker, errno.EIO)
    assert refusal(worker, 1) == "disk_error"
    area = tmp_path / "dlq"
    away = area.rename(tmp_path / "away")
    area.write_bytes(b"")  # no directory: nothing can be written there
    worker.admission.refresh()
    assert refusal(worker, 1) == "disk_error"
    area.unlink()
    away.rename(area)
    worker.admission.refresh()
    worker.admission.admit(1)


def test_a_full_disk_is_told_as_a_full_dlq_whatever_the_policy(tmp_path):
    worker = worker_at(tmp_path, DLQ_OVERFLOW="drop_oldest")
    worker.admission.admit(2 * LIMIT)  # older files make room
    fail(worker, errno.ENOSPC)
    assert refusal(worker, 1) == "dlq_full"


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (errno.ENOSPC, "dlq_full", "no room left"),
        (errno.EDQUOT, "dlq_full", "quota"),
        (errno.EFBIG, "disk_error", "ulimit -f"),
        (errno.EROFS, "disk_error", "read-only"),
        (errno.EIO, "disk_error", "failing"),
    ],
)
def test_a_refusal_says_what_the_disk_says(worker, number, reason, words):
    error = DiskError("write", "x", OSError(number, os.strerror(number)))
    fail(worker, number)
    with pytest.raises(Refused, match=words) as caught:
        worker.admission.admit(1)
    met = worker.admission.refusal(error)
    assert (met.reason, met.description) == (caught.value.reason, caught.value.description)
    assert met.reason == reason
    assert worker.admission.full == (reason == "dlq_full")


def test_files_count_as_room_where_the_file_system_counts_them(tmp_path):
    with tmpfs(tmp_path / "disk", 2**20, files=60):
        worker = worker_at(tmp_path / "disk")
        worker.admission._limit_bytes = 2**30
        before = os.statvfs(tmp_path / "disk").f_favail
        for _ in range(before):
            try:
                worker.admission.admit(1)
            except Refused as refused:
                assert (refused.reason, "inodes" in refused.description) == ("dlq_full", True)
                break
            worker.admission.expose(0, files=1)
        assert 0 < worker.counts.row.cells[metrics.EXPOSED_FILES] < before
        assert worker.admission.full
        worker.admission.expose(0, files=-1)
        worker.admission.admit(1)


def test_what_one_worker_took_beforehand_is_never_admitted_by_another(tmp_path):
    each, limit = OVERHEAD_BYTES + 1, 1000 * OVERHEAD_BYTES
    worker = worker_at(tmp_path, limit)
    other = Parts(worker.settings, worker.page, slot=2)
    metrics.forget_process(other.counts.row)
    workers = [worker.admission, other.admission]

    def fill(turn):
        admitted = 0
        while True:
            one = workers[turn(admitted)]
            try:
                one.admit(1)
            except Refused:
                return admitted * each
            one.expose(1, files=1)
            admitted += 1

    for one in workers:
        one.refresh()
    taken = fill(lambda number: number % 2)
    assert limit * 3 // 4 < taken <= limit
    # what one that is idle took is free again after a look at the disk
    for one in workers:
        one.refresh()
    taken += fill(lambda _: 0)
    assert limit - each < taken <= limit


def test_a_journal_that_grows_takes_no_more_than_was_taken_beforehand(tmp_path):
    size, limit = OVERHEAD_BYTES, 1000 * OVERHEAD_BYTES
    worker = worker_at(tmp_path, limit)
    other = Parts(worker.settings, worker.page, slot=2)
    metrics.forget_process(other.counts.row)

    def take(one, most):
        for _ in range(most):
            try:
                one.admission.admit(size)
            except Refused:
                break
            one.admission.expose(size, files=1)
            one.counts.count(metrics.JOURNAL_BYTES, size)

    for one in (worker, other):
        one.admission.refresh()
    take(other, 1)  # it takes more beforehand, while there is much room
    take(worker, limit)
    take(other, limit)
    cells = [one.counts.row.cells for one in (worker, other)]
    taken = sum(row[metrics.EXPOSED_BYTES] + row[metrics.JOURNAL_BYTES] for row in cells)
    assert limit - 2 * size < taken <= limit + size
