"""Which row of the shared page a new worker gets, and what it does if none is free."""

from types import SimpleNamespace

import pytest

from estat.accounting.shared_memory import ARBITER, SLOTS
from estat.server import hooks, inherited

MOST_WORKERS = 64  # WEB_CONCURRENCY


@pytest.fixture
def fork(monkeypatch):
    """Return what the arbiter does for a new worker, up to its fork."""
    monkeypatch.setattr(hooks, "_slots_taken", {})

    def fork(age):
        worker = SimpleNamespace(age=age, pid=1000 + age)
        hooks.pre_fork(None, worker)
        return worker

    return fork


def test_two_reloads_while_the_first_workers_still_drain_find_slots_for_all(fork):
    slots = [fork(age).estat_slot for age in range(3 * MOST_WORKERS)]
    assert slots == list(range(ARBITER + 1, ARBITER + 1 + len(slots)))


def test_a_worker_gets_the_lowest_slot_that_is_free(fork):
    workers = [fork(age) for age in range(3)]
    hooks.child_exit(None, workers[1])
    assert fork(3).estat_slot == workers[1].estat_slot
    assert fork(4).estat_slot == workers[2].estat_slot + 1


def test_a_worker_without_a_slot_ends_at_once_and_a_later_one_gets_what_was_freed(
    fork, monkeypatch
):
    monkeypatch.setattr(hooks, "_NO_SLOT_SECONDS", 0)
    monkeypatch.setattr(inherited, "_here", inherited._Inherited())
    workers = [fork(age) for age in range(SLOTS - 1)]
    refused = fork(SLOTS)
    with pytest.raises(SystemExit) as ended:
        hooks.post_fork(None, refused)
    assert not ended.value.code
    hooks.child_exit(None, refused)
    with pytest.raises(SystemExit):  # it has taken nobody's
        inherited.slot()
    hooks.child_exit(None, workers[7])
    assert fork(SLOTS + 1).estat_slot == workers[7].estat_slot
