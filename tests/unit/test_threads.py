"""Work in the one thread comes back to whom it belongs, in order."""

import os
import threading

import gevent
import pytest
from gevent.event import Event
from gevent.exceptions import LoopExit

from estat.threads import SerialExecutor
from tests.support.eventually import eventually


@pytest.fixture
def executor():
    return SerialExecutor()


def test_work_runs_in_a_thread_of_its_own_and_returns_its_result(executor):
    threads = {executor.run(threading.get_native_id) for _ in range(3)}
    assert len(threads) == 1
    assert threads.isdisjoint({threading.get_native_id()})


def test_an_error_is_raised_where_the_work_was_asked_for_and_the_next_piece_runs(executor):
    with pytest.raises(ZeroDivisionError):
        executor.run(divmod, 1, 0)
    assert executor.run(divmod, 7, 2) == (3, 1)


def test_pieces_that_are_asked_for_at_once_are_done_one_after_the_other(executor):
    done = []

    def work(number):
        done.append(number)
        return -number

    greenlets = [gevent.spawn(executor.run, work, number) for number in range(50)]
    gevent.joinall(greenlets, timeout=10, raise_error=True)
    assert done == list(range(50))
    assert [greenlet.value for greenlet in greenlets] == [-number for number in range(50)]


def test_other_greenlets_go_on_while_the_thread_works(executor):
    release = threading.Event()
    waiting = gevent.spawn(executor.run, release.wait, 10)
    gevent.sleep(0)
    assert not waiting.ready()
    release.set()
    assert waiting.get(timeout=10) is True


def test_a_greenlet_that_is_killed_while_it_waits_leaves_the_next_its_own_result(executor):
    release = threading.Event()
    waiting = gevent.spawn(executor.run, release.wait, 10)
    gevent.sleep(0)
    waiting.kill()
    release.set()
    assert executor.run(len, "abc") == 3


def test_an_idle_thread_lets_a_loop_end_that_waits_for_nothing():
    ended = []

    def wait_for_nothing():
        SerialExecutor().run(len, "abc")
        try:
            Event().wait()
        except LoopExit:
            ended.append(True)

    # a native thread has a loop of its own
    thread = threading.Thread(target=wait_for_nothing, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert ended


def test_the_thread_ends_with_its_executor(executor):
    passing = SerialExecutor()
    thread = str(passing.run(threading.get_native_id))
    del passing

    def others() -> list[str]:
        return executor.run(os.listdir, "/proc/self/task")

    eventually(lambda: thread not in others(), 10, "the thread has ended")
    assert str(executor.run(threading.get_native_id)) in others()
