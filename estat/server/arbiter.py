"""gunicorn's arbiter, but patient with workers that can't boot, and with the server's own stop.

gunicorn ends the whole server when a single worker can't boot, forks the next one at once when it
died on the way, and ends too when the host refuses the fork. A reload stops all old workers before
it knows whether a new one can serve. Here

- a worker that could not boot is tried again after a pause, which grows, while others serve;
- an old worker stops when a new one serves in its place;
- before any worker has served at all, gunicorn's rule holds: the server ends with the reason, for
  that is most likely a wrong start.

A worker says that it has booted in its row of the shared page (``metrics.BOOTS``). How the server
stops, step by step, is in ``drain``.
"""

import contextlib
import logging
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.sock import close_sockets
from gunicorn.workers.base import Worker

from estat.accounting import metrics
from estat.accounting.shared_memory import DRAINING, HURRYING, STOPPING
from estat.server.inherited import page, settings
from estat.server.launch import wrong_settings

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0

_POLL_SECONDS = 0.05

#: A worker that hangs in the kernel on a disk does not die when it is killed.
_KILLED_SECONDS = 1.0

#: What reads the settings as it is imported, which must happen again at each reload.
_CONFIGURATION = "estat.gunicorn_conf"

#: gunicorn's statuses of a worker that could not boot, at which its arbiter ends.
_BOOT_ERROR, _LOAD_ERROR = 3, 4
#: Added to them, the arbiter never meets one, and a worker ends with the same status as before: the
#: kernel keeps eight bits of it.
_UNMET = 256


class _ReadAgainError(Exception):
    """A reload has read all settings; gunicorn's way on from there is not taken."""


class PatientArbiter(Arbiter):
    """The arbiter from ``when_ready`` on; gunicorn has no setting for its class."""

    def learn(self) -> None:
        """Begin to be patient: no worker has been forked yet."""
        self._young: list[Worker] = []  # forked, and not known to have booted
        self._told: set[Worker] = set()  # to stop
        self._outdated = 0  # workers up to this age have settings of before the last reload
        self._reloading = self._stopping = self._hurried = False
        self._pause_seconds = 0.0  # before the next attempt, once one has failed
        self._next_attempt = 0.0  # time.monotonic

    @property
    def WORKER_BOOT_ERROR(self) -> int:  # noqa: N802 - gunicorn's name
        """The status of a worker that could not boot."""
        return _BOOT_ERROR + self._unmet

    @property
    def APP_LOAD_ERROR(self) -> int:  # noqa: N802
        """The status of a worker that could not load the application."""
        return _LOAD_ERROR + self._unmet

    @property
    def _unmet(self) -> int:
        # while it stops, gunicorn would end amid it: without the accounting
        return _UNMET if self._stopping or _any_has_served() else 0

    def handle_term(self) -> None:
        """Turn /ready red, go on serving for DRAIN_DELAY, then let gunicorn stop the workers.

        Like gunicorn's own handlers it ends the main loop by StopIteration.
        """
        page().state = DRAINING
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._hurry)
        drain_delay = settings().drain_delay
        logger.info("drain_started", extra={"drain_delay_seconds": drain_delay})
        until = time.monotonic() + drain_delay
        while time.monotonic() < until and not self._hurried:
            self.reap_workers()
            self.murder_workers()
            self.manage_workers()
            time.sleep(_POLL_SECONDS)
        page().state = STOPPING
        if self._hurried:  # perhaps by a signal that came just before the line above
            page().state = HURRYING
        raise StopIteration

    handle_int = handle_quit = handle_term

    def _hurry(self, _number: int, _frame: FrameType | None) -> None:
        """Let the workers skip to the disk: this is a second signal."""
        if os.getpid() != self.pid:
            return  # a new worker, which has the arbiter's handlers until it sets its own
        self._hurried = True
        page().state = HURRYING
        self.kill_workers(signal.SIGTERM)

    def stop(self, graceful: bool = True) -> None:
        """Stop all workers, and kill those that are late.

        gunicorn's own asks the wall clock, which may step amid the drain. And a second signal that
        came before ``handle_term`` took it leaves its workers two seconds.
        """
        self._stopping = True
        unlink = self.reexec_pid == self.master_pid == 0 and not self.systemd
        close_sockets(self.LISTENERS, unlink)
        self.LISTENERS: list[Any] = []
        if self.dirty_arbiter_pid:
            self.kill_dirty_arbiter(signal.SIGTERM)
        self.kill_workers(signal.SIGTERM if graceful else signal.SIGQUIT)
        self._reap(self.cfg.graceful_timeout)
        self.kill_workers(signal.SIGKILL)
        self._reap(_KILLED_SECONDS)

    def _reap(self, seconds: float) -> None:
        """Wait until all workers have ended, at most so long."""
        until = time.monotonic() + seconds
        self.reap_workers()
        while self.WORKERS and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            self.reap_workers()

    def manage_workers(self) -> None:
        """Fork the workers that are missing, and stop those that others serve for."""
        self._look_after_the_young()
        self._told.intersection_update(self.WORKERS.values())
        # workers that do not serve yet are stopped first
        workers = sorted(
            (worker for worker in self.WORKERS.values() if worker not in self._told),
            key=lambda worker: (worker not in self._young, worker.age),
        )
        old = [worker for worker in workers if worker.age <= self._outdated]
        new = [worker for worker in workers if worker.age > self._outdated]
        self._fork(self.num_workers - len(new))
        serving = sum(worker not in self._young for worker in new)
        still_needed = max(0, self.num_workers - serving)
        surplus = old[: max(0, len(old) - still_needed)]
        surplus += new[: max(0, len(new) - self.num_workers)]
        for worker in surplus:
            self._told.add(worker)
            self.kill_worker(worker.pid, signal.SIGTERM)

    def reload(self) -> None:
        """Read the settings again; from now on the workers of before are replaced."""
        self._outdated = self.worker_age
        self._pause_seconds = self._next_attempt = 0.0
        self._reloading = True
        sys.modules.pop(_CONFIGURATION, None)
        try:
            with contextlib.suppress(_ReadAgainError):
                super().reload()
        except SystemExit:  # which gunicorn raises once it has said on standard error what is wrong
            self._keep_settings("gunicorn's configuration file can't be used")
        finally:
            self._reloading = False
        self.manage_workers()

    def setup(self, app: Any) -> None:
        """Take gunicorn's own settings over, unless the server can't work with them."""
        wrong = wrong_settings(app.cfg)
        if wrong:
            self._keep_settings(*wrong)
        super().setup(app)

    def _keep_settings(self, *problems: str) -> None:
        self.app.cfg = self.cfg
        for problem in problems:
            logger.error("reload_refused", extra={"problem": problem})

    def spawn_worker(self) -> int:
        """Fork a worker and return its pid."""
        if self._reloading:
            raise _ReadAgainError  # gunicorn would stop all old workers next, and wait for them
        return int(super().spawn_worker())

    def _look_after_the_young(self) -> None:
        """Note who has booted, and who has ended without."""
        failed = []
        for worker in list(self._young):
            if _has_booted(worker):
                self._pause_seconds = self._next_attempt = 0.0
            elif worker.pid in self.WORKERS:
                continue
            elif worker not in self._told:
                failed.append(worker.pid)
            self._young.remove(worker)
        if failed:
            self._wait(worker_pids=failed)

    def _fork(self, missing: int) -> None:
        if time.monotonic() < self._next_attempt:
            return
        if self._pause_seconds:
            missing = min(missing, 1 - len(self._young))  # one attempt at a time
        for _ in range(missing):
            try:
                pid = self.spawn_worker()
            except (OSError, RuntimeError) as exc:  # the latter without worker_tmp_dir
                if os.getpid() != self.pid:
                    raise
                if not self.WORKERS and not _any_has_served():
                    raise HaltServer(f"no worker can be forked: {exc}", _BOOT_ERROR) from exc
                self._wait(error=str(exc))
                return
            self._young.append(self.WORKERS[pid])

    def _wait(self, **facts: object) -> None:
        """Put the next attempt off."""
        self._pause_seconds = min(
            max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds), _LONGEST_PAUSE_SECONDS
        )
        self._next_attempt = time.monotonic() + self._pause_seconds
        logger.error("worker_not_started", extra={"retry_seconds": self._pause_seconds, **facts})


def make_patient(server: Arbiter) -> None:
    """Turn gunicorn's arbiter into a patient one."""
    server.__class__ = PatientArbiter
    server.learn()


def _has_booted(worker: Worker) -> bool:
    slot = worker.estat_slot
    return slot is not None and page().rows[slot].cells[metrics.BOOTS] > worker.estat_boots


def _any_has_served() -> bool:
    return any(row.cells[metrics.BOOTS] for row in page().rows)
