"""What only the leader does: turn by turn, whatever a turn raises."""

import errno
import os

import gevent
import pytest

from estat.errors import DiskError
from estat.pipeline.leader_loop import LeaderLoop
from tests.support.parts import Parts, load


class Loop(LeaderLoop):
    """A loop whose turns raise what they are given, and that ends after the last of them."""

    _error_event = "loop_failed_unexpectedly"
    _pause_seconds = _pause_after_error_seconds = 0.0

    def __init__(self, worker, errors):
        super().__init__(worker.leader, worker.admission)
        self.turns = 0
        self._errors = errors

    def turn(self):
        self.turns += 1
        if self._errors:
            raise self._errors.pop(0)
        self.end()
        return 3600.0


@pytest.fixture
def worker(tmp_path):
    made = Parts(load(tmp_path))
    made.dlq.create()
    return made


def test_a_turn_that_fails_is_followed_by_another_one(worker):
    loop = Loop(worker, [KeyError("whatever"), ValueError("nobody expects")])
    with gevent.Timeout(20):
        loop.run()
    assert loop.turns == 3
    assert not worker.admission.failing


def test_a_disk_error_of_a_turn_closes_admission(worker):
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    loop = Loop(worker, [DiskError("open", "x", error)])
    with gevent.Timeout(20):
        loop.run()
    assert worker.admission.failing


def test_no_turn_is_taken_while_another_worker_leads(worker):
    leading = Parts(worker.settings)
    assert leading.leader.lead()
    loop = Loop(worker, [])
    running = gevent.spawn(loop.run)
    gevent.sleep(0)
    assert not loop.turns
    leading.leader.release()
    running.get(timeout=20)
    assert loop.turns == 1


def test_a_loop_that_is_ended_does_not_wait_for_its_next_turn(worker):
    loop = Loop(worker, [])
    loop._pause_seconds = 3600.0
    leading = Parts(worker.settings)
    assert leading.leader.lead()
    running = gevent.spawn(loop.run)
    gevent.sleep(0)
    loop.end()
    running.get(timeout=20)
    assert not loop.turns
