"""gunicorn's hooks: which slot a worker gets, and what is said of its events when it is gone."""

import itertools
from types import SimpleNamespace

import pytest

from estat.accounting import metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import ARBITER, SLOTS
from estat.config import loading
from estat.server import greeting, hooks, inherited, own_directory

MOST_WORKERS = 64  # WEB_CONCURRENCY


class Server:
    """gunicorn's arbiter, as the hooks see it."""

    def __init__(self):
        self.WORKERS = {}
        self._pids = itertools.count(1000)

    def fork(self):
        worker = SimpleNamespace(pid=next(self._pids))
        hooks.pre_fork(self, worker)
        self.WORKERS[worker.pid] = worker
        return worker

    def reap(self, worker):
        del self.WORKERS[worker.pid]
        hooks.child_exit(self, worker)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(inherited, "_here", inherited._Inherited(directory=SimpleNamespace()))
    return Server()


def test_two_reloads_while_the_first_workers_still_drain_find_slots_for_all(server):
    slots = [server.fork().estat_slot for _ in range(3 * MOST_WORKERS)]
    assert slots == list(range(ARBITER + 1, ARBITER + 1 + len(slots)))


def test_a_worker_gets_the_lowest_slot_that_is_free(server):
    workers = [server.fork() for _ in range(3)]
    server.reap(workers[1])
    hooks.pre_fork(server, SimpleNamespace())  # its fork fails
    assert server.fork().estat_slot == workers[1].estat_slot
    assert server.fork().estat_slot == workers[2].estat_slot + 1


def test_a_worker_without_a_slot_ends_at_once_and_a_later_one_gets_what_was_freed(
    server, monkeypatch
):
    monkeypatch.setattr(hooks, "_NO_SLOT_SECONDS", 0)
    workers = [server.fork() for _ in range(SLOTS - 1)]
    refused = server.fork()
    with pytest.raises(SystemExit) as ended:
        hooks.post_fork(server, refused)
    assert not ended.value.code
    server.reap(refused)
    with pytest.raises(SystemExit):  # it has taken nobody's
        inherited.slot()
    server.reap(workers[7])
    assert server.fork().estat_slot == workers[7].estat_slot


@pytest.fixture
def accept(server, monkeypatch, tmp_path):
    """Let a worker accept events that no journal holds; return that worker."""
    page = metrics.page()
    settings = loading.load({"RAW_BUCKET": "events", "DLQ_DIR": str(tmp_path)}, env_file="")
    monkeypatch.setattr(inherited, "_here", inherited._Inherited(given=settings))
    for module in (hooks, own_directory):
        monkeypatch.setattr(module, "page", lambda: page)

    def accept(events):
        worker = server.fork()
        Ledger(Metrics(page.rows[worker.estat_slot])).accept(events)
        return worker

    return accept


def test_a_worker_that_died_is_told_once_with_what_it_held(server, accept, caplog):
    worker = accept(3)
    server.reap(worker)
    with pytest.raises(SystemExit):
        hooks.on_exit(server)
    told = [line for line in caplog.records if line.message == "worker_died"]
    assert [line.events_pending for line in told] == [3]


@pytest.mark.parametrize(("events", "code"), [(3, 1), (0, 0)])
def test_the_exit_code_says_whether_the_accounting_closes(events, code, server, accept, caplog):
    caplog.set_level("INFO")
    accept(events)
    try:
        hooks.on_exit(server)
    except SystemExit as ended:
        assert ended.code == code
    else:
        assert code == 0
    stopped = caplog.records[-1]
    assert (stopped.message, stopped.accepted, stopped.lost) == ("server_stopped", events, events)


@pytest.mark.parametrize(("durability", "when"), [("stored", "Then"), ("journal", "After 120s")])
def test_the_first_screen_says_when_the_object_is_there(durability, when):
    given = {"RAW_BUCKET": "file:/data", "DURABILITY": durability}
    settings = loading.load(given, env_file="")
    lines = greeting.lines(settings, ["http://127.0.0.1:8080"], interactive=True)
    assert f"  {when:<12} zcat /data/raw/dt=*/hr=*/*.jsonl.gz" in list(lines)
