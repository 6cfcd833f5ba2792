"""How the arbiter stops, and how a worker drains."""

import os
import signal
from types import SimpleNamespace

import pytest

from estat.accounting import metrics
from estat.accounting.shared_memory import DRAINING, HURRYING, SERVING, STOPPING
from estat.config import loading
from estat.server import arbiter, drain, inherited
from estat.server.arbiter import PatientArbiter

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Pipeline:
    """Writes down what a drain asks of it."""

    def __init__(self, left=0):
        self.settings = loading.load({"RAW_BUCKET": "events"}, env_file="")
        self.page = metrics.page()
        self.asked = []
        self._left = left

    def flush(self):
        self.asked.append("flush")

    def answer_waiting(self):
        self.asked.append("answer_waiting")

    def hurry(self):
        self.asked.append("hurry")

    def drain(self, upload_until, deadline, *, last):
        self.asked.append(("drain", upload_until, deadline, last))
        return self._left


class Server(PatientArbiter):
    """An arbiter without workers."""

    def __init__(self, pid, during_delay):
        self.pid = pid
        self.killed = []
        self.reap_workers = during_delay
        self.murder_workers = self.manage_workers = lambda: None
        self.learn()

    def kill_workers(self, number):
        self.killed.append(number)


@pytest.fixture(autouse=True)
def handlers():
    """Put the handlers of signals back; return the signals that would have ended this process."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    came = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def page(monkeypatch):
    """The page of a server whose DRAIN_DELAY only a second signal ends."""
    given = {"RAW_BUCKET": "events", "DRAIN_DELAY": "10m", "SHUTDOWN_TIMEOUT": "1h"}
    settings = loading.load(given, env_file="")
    page = metrics.page()
    monkeypatch.setattr(inherited, "_here", inherited._Inherited(given=settings))
    monkeypatch.setattr(arbiter, "page", lambda: page)
    return page


def test_a_drain_begins_once_however_often_it_is_asked_for():
    pipeline = Pipeline()
    assert drain.begin(pipeline) is drain.begin(pipeline)
    assert pipeline.asked == ["flush"]


def test_a_pipeline_is_emptied_once_and_its_disk_has_the_last_word():
    pipeline = Pipeline()
    ending = drain.Drain(pipeline)
    ending.finish()
    ending.finish()
    _, (_, upload_until, deadline, _) = pipeline.asked
    assert ending.requests_until < upload_until < deadline


@pytest.mark.parametrize(("state", "last"), [(SERVING, False), (STOPPING, True), (HURRYING, False)])
def test_only_the_drain_of_a_server_that_stops_in_order_is_the_last(state, last):
    pipeline = Pipeline()
    pipeline.page.state = state
    drain.Drain(pipeline).finish()
    assert pipeline.asked[-1][-1] is last


def test_events_that_a_drain_has_left_in_memory_are_an_error(caplog):
    caplog.set_level("INFO")
    drain.Drain(Pipeline(left=3)).finish()
    drain.Drain(Pipeline()).finish()
    assert [(line.levelname, line.left) for line in caplog.records] == [("ERROR", 3), ("INFO", 0)]


@pytest.mark.parametrize("alive", [True, False])
def test_a_worker_ends_with_its_server_and_hurries_with_it(alive, handlers):
    pipeline = Pipeline()
    pipeline.page.state = HURRYING
    drain.follow_stop(SimpleNamespace(alive=alive, wsgi=SimpleNamespace(pipeline=pipeline)))
    assert handlers == [signal.SIGTERM] * alive
    assert pipeline.asked == ["flush", "hurry"]


def test_a_second_signal_ends_the_delay_and_hurries_the_workers(page):
    seen = []

    def a_second_signal():
        seen.append(page.state)
        os.kill(os.getpid(), signal.SIGTERM)

    server = Server(os.getpid(), during_delay=a_second_signal)
    with pytest.raises(StopIteration):
        server.handle_term()
    assert seen == [DRAINING]
    assert page.state == HURRYING
    assert server.killed == [signal.SIGTERM]


def test_a_signal_to_a_worker_that_has_the_arbiters_handlers_still_hurries_nobody(page):
    def a_signal_to_the_worker():
        os.kill(os.getpid(), signal.SIGTERM)
        raise InterruptedError  # the delay lasts for ten minutes

    server = Server(os.getppid(), during_delay=a_signal_to_the_worker)
    with pytest.raises(InterruptedError):
        server.handle_term()
    assert page.state == DRAINING
    assert server.killed == []
