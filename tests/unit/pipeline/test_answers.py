"""Who waits for the store, for how long, and what is told of it."""

import pytest

from estat.accounting import metrics
from estat.errors import StoreDenied
from estat.pipeline.answers import Answers, Waiting
from estat.pipeline.breaker import Breaker
from estat.pipeline.queue import Submission
from tests.support.parts import Parts, load


class Worker(Parts):
    """Answers whose breaker has a clock that a test sets."""

    def __init__(self, root):
        super().__init__(load(root, DURABILITY="stored", UPLOAD_CONCURRENCY="1"))
        self.seconds = 0.0
        self.breaker = Breaker(self.counts, lambda: self.seconds)
        self.woken = []
        self.answers = Answers(
            self.breaker,
            self.counts,
            self.settings,
            lambda: self.woken.append(True),
            lambda: self.seconds,
        )

    def ask(self, batch=None):
        """Return a request whose events are in the journal, and its batch."""
        request, batch = Submission(b"", [b"{}"]), batch or Waiting(self.answers)
        batch.add([request])
        return request, batch

    def outage(self):
        self.breaker.on_open = lambda: self.answers.settle_all("breaker_open")
        self.breaker.failed(StoreDenied("403"), "key")

    @property
    def kept(self):
        return {where: self.counts.row.cells[at] for where, at in metrics.ANSWERS_KEPT.items()}


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path)


def is_on_disk(request):
    """Return where an answered request's events are; it must be answered."""
    assert request._done
    return request.on_disk_alone


def test_a_request_is_answered_when_its_batch_is_stored_and_no_sooner(worker):
    (one, batch), (other, _) = worker.ask(), worker.ask()
    assert not one._done
    batch.settle()
    assert not is_on_disk(one)
    assert not other._done
    assert worker.woken == [True]
    assert worker.kept == {"store": 1, "disk": 0}


def test_a_request_that_waits_holds_none_of_its_events(worker):
    request, _ = worker.ask()
    assert request.events == 1
    assert not request.bodies


def test_when_the_breaker_opens_all_who_wait_are_answered_and_their_batch_tells_nothing_more(
    worker,
):
    (one, batch), (other, _) = worker.ask(), worker.ask()
    worker.outage()
    assert is_on_disk(one)
    assert is_on_disk(other)
    batch.settle()  # it was stored after all
    assert worker.kept == {"store": 0, "disk": 2}


def test_while_the_breaker_is_open_nobody_waits_until_a_probe_is_due(worker):
    worker.outage()
    answered, batch = worker.ask()
    assert is_on_disk(answered)
    worker.seconds = 1.0
    waits, _ = worker.ask(batch)
    assert not waits._done


def test_once_a_stop_has_no_more_time_nobody_waits_any_more(worker):
    waits, batch = worker.ask()
    assert worker.answers.stop()
    asked = [worker.ask(batch)[0], worker.ask()[0]]
    assert all(map(is_on_disk, [waits, *asked]))
    assert not worker.answers.stop()


def test_a_batch_lives_for_the_interval_and_in_an_outage_until_it_may_probe(worker):
    assert worker.answers.max_age_seconds == 0.25
    worker.outage()
    worker.seconds = 0.4
    assert worker.answers.max_age_seconds == pytest.approx(0.6)
    worker.seconds = 0.9
    assert worker.answers.max_age_seconds == 0.25
    worker.breaker.worked()
    worker.answers.hurry()
    assert worker.answers.max_age_seconds == 0


def test_it_is_busy_while_every_uploader_has_a_batch_that_is_waited_for(worker):
    _, first = worker.ask()
    assert not worker.answers.busy
    worker.ask()
    assert worker.answers.busy
    first.settle()
    assert not worker.answers.busy


def test_a_time_in_which_answers_are_kept_on_disk_is_logged_by_its_beginning_and_its_end(
    worker, caplog
):
    for on_disk in ("", "", "put_failed", "", "stopping", "", "pause", "", ""):
        if on_disk == "pause":
            worker.seconds += 1
        else:
            worker.ask()[1].settle(on_disk)
    assert [record.message for record in caplog.records] == [
        "answers_kept_on_disk",
        "answers_kept_in_store",
    ]
    assert caplog.records[0].reason == "put_failed"
