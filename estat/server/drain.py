"""How the server stops: first the arbiter (``PatientArbiter``), then each worker (``Drain``).

    a signal -> the arbiter turns /ready red, and for DRAIN_DELAY all is served as before
    -> gunicorn sends its workers a signal
    -> a worker's first third of the time is for requests in flight, the second one for
       uploads, and the last one for the disk

A second signal makes the workers skip to the disk. A worker that ends alone, after a
reload say, drains in the same way.
"""

import logging
import os
import signal
import time
from functools import cache

import gevent
from gunicorn.workers.base import Worker

from estat.accounting.shared_memory import HURRYING, STOPPING
from estat.pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)

_HEED_SECONDS = 0.5  # how often a worker looks whether the server stops
_POLL_SECONDS = 0.05  # and once it stops, whether it hurries


class Drain:
    """One worker's drain. Its clock starts now."""

    def __init__(self, pipeline: Pipeline) -> None:
        times = pipeline.settings.stop_times
        now = time.monotonic()
        self._pipeline = pipeline
        self._finished = False
        self.requests_until = now + times.requests
        self._upload_until = now + times.uploads
        self._deadline = now + times.disk
        pipeline.flush()

    @property
    def hurried(self) -> bool:
        """Whether a second signal asked to skip to the disk."""
        return self._pipeline.page.state == HURRYING

    def finish(self) -> None:
        """Empty the pipeline, once no request is in flight. A second call does nothing."""
        if self._finished:
            return
        self._finished = True
        last = self._pipeline.page.state == STOPPING
        left = self._pipeline.drain(self._upload_until, self._deadline, last=last)
        logger.log(logging.ERROR if left else logging.INFO, "worker_drained", extra={"left": left})


@cache
def begin(pipeline: Pipeline) -> Drain:
    """Start to drain a worker's pipeline; return the drain that is under way, if there is one."""
    return Drain(pipeline)


def follow_stop(worker: Worker) -> None:
    """Stop a worker when the server stops, and skip to the disk when it hurries (a greenlet).

    Signals alone would not do. Until a new worker has its own handlers, a signal ends in its copy
    of the arbiter's queue; and gunicorn's stock worker takes a second signal for the first one.
    """
    pipeline: Pipeline = worker.wsgi.pipeline
    page = pipeline.page
    while page.state not in (STOPPING, HURRYING):
        gevent.sleep(_HEED_SECONDS)
    if worker.alive:
        os.kill(os.getpid(), signal.SIGTERM)
    # the stock worker drains only once its requests are answered
    pipeline.flush()
    gevent.spawn_later(pipeline.settings.stop_times.requests, pipeline.answer_waiting)
    while page.state != HURRYING:
        gevent.sleep(_POLL_SECONDS)
    pipeline.hurry()
