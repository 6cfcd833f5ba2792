"""The server's life through gunicorn's hooks: start, workers, drain, the accounting.

Who does what:

- The arbiter reads the settings, maps the shared page, counts the DLQ once,
  gives each worker a slot, and at the end logs the accounting.
- A stop begins in the arbiter: it turns /ready red (the page's drain flag), waits
  DRAIN_DELAY while everything is still served, and then stops its workers.
- Each worker drains itself (``Drain``); ``gunicorn_worker`` begins that as soon as
  the signal comes, the worker_exit hook makes up for it under a stock worker.
"""

import contextlib
import gc
import logging
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from types import FrameType
from typing import Any

import gevent

from estat import log
from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import ARBITER, DRAINING, HURRYING, STOPPING, SharedPage
from estat.config import loading
from estat.config.settings import Settings
from estat.disk import directory_lock, dlq_dir, files, journal
from estat.disk.dlq import DeadLetterQueue
from estat.disk.leader import Leader
from estat.disk.server_directory import SERVERS, ServerDirectory
from estat.errors import DiskError, SettingsError
from estat.pipeline import recovery
from estat.server.launch import check_worker_class, refuse_early_load, refuse_without_configuration

logger = logging.getLogger(__name__)
_seldom = log.Seldom(logger)

_SHM = "/dev/shm"  # noqa: S108

#: Connections that one worker holds at a time, where the limit of open files allows them.
_MAX_CONNECTIONS = 4096
_OTHER_FILES = 200  # uploads, DLQ files, libraries

_GC_THRESHOLDS = (20_000, 20, 50)

_REAP_SECONDS = 1.0

#: A worker whose stage died waits so long before it ends: what killed it may do so again.
_BROKEN_SECONDS = 1.0

#: A worker that found no free slot ends after so long; the arbiter then forks another one.
_NO_SLOT_SECONDS = 1.0

_HEED_SECONDS = 0.5  # how often a worker looks whether the server stops

# What the arbiter hands to its workers by fork. A worker class, hooks and the
# WSGI module are only named to gunicorn, so there is no constructor to pass it to.
_inherited: dict[str, Any] = {}
_slots_taken: dict[int, int] = {}  # in the arbiter: worker age -> slot


@cache
def page() -> SharedPage:
    """Return the page that this server's processes share; made by the first call, before fork."""
    return metrics.page()


def settings() -> Settings:
    """Return the settings that are in force; end a process that the configuration did not start."""
    if "settings" not in _inherited:
        refuse_without_configuration()
    loaded: Settings = _inherited["settings"]
    return loaded


def slot() -> int:
    """Return this worker's row of the page; end a process that is no worker."""
    if "slot" not in _inherited:
        refuse_early_load()
    number: int = _inherited["slot"]
    return number


def load_settings() -> Settings:
    """Read the settings: at start exit 2 if they are bad, on a reload keep the old ones."""
    old: Settings | None = _inherited.get("settings")
    try:
        loaded = loading.load()
        if old:
            _check_addresses(old, loaded)
            loaded = _with_directory_of(old, loaded)
        _inherited["settings"] = loaded
        metrics.name_keys(key.name for key in loaded.write_keys)
    except SettingsError as exc:
        if old is None:
            for problem in exc.problems:
                print(f"estat: {problem}", file=sys.stderr)  # noqa: T201 - no log is set up yet
            sys.exit(2)
        loaded = old
        for problem in exc.problems:
            logger.error("reload_refused", extra={"problem": problem})
    log.configure(loaded.log_level, loaded.log_format)
    return loaded


def _check_addresses(old: Settings, new: Settings) -> None:
    """Raise SettingsError if an address changes.

    gunicorn would open all of them anew, fail on one that its workers still hold, and end.
    """
    if (old.http_addr, old.metrics_addr) != (new.http_addr, new.metrics_addr):
        raise SettingsError(
            ["HTTP_ADDR and METRICS_ADDR can't change on a reload: restart the server"]
        )


def _with_directory_of(old: Settings, new: Settings) -> Settings:
    """Return new settings with the directory that is in use. Raises SettingsError."""
    given = _inherited.get("dlq_dir", old.dlq_dir)
    if (new.dlq_dir, new.dlq_shared) != (given, old.dlq_shared):
        raise SettingsError(["DLQ_DIR and DLQ_SHARED can't change on a reload: restart the server"])
    return replace(new, dlq_dir=old.dlq_dir)


def gunicorn_config() -> dict[str, Any]:
    """Return gunicorn's settings and hooks, for a configuration file's namespace."""
    current = load_settings()
    page()
    return {
        "bind": [address for address in (current.http_addr, current.metrics_addr) if address],
        "workers": current.web_concurrency,
        "worker_class": "estat.server.worker.EstatWorker",
        "logger_class": "estat.server.logger.StructuredLogger",
        "loglevel": current.log_level,
        # the strict one; "auto" takes whatever is installed
        "http_parser": "python",
        "keepalive": math.ceil(current.keepalive),
        "worker_connections": _connections(),
        "graceful_timeout": math.ceil(current.shutdown_timeout - current.drain_delay),
        "control_socket_disable": True,
        # the heartbeat's file must not wait for a disk
        "worker_tmp_dir": _SHM if os.path.isdir(_SHM) else None,
        "preload_app": False,
        "on_starting": on_starting,
        "when_ready": when_ready,
        "pre_fork": pre_fork,
        "post_fork": post_fork,
        "post_worker_init": post_worker_init,
        "worker_exit": worker_exit,
        "child_exit": child_exit,
        "on_exit": on_exit,
    }


def _connections() -> int:
    """Raise the limit of open files as far as allowed; return the connections that fit a worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (soft, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(_OTHER_FILES, min(_MAX_CONNECTIONS, soft - _OTHER_FILES))


# --- in the arbiter


def on_starting(server: Any) -> None:
    """Refuse a wrong start and a DLQ_DIR that can't be used, before the server listens."""
    check_worker_class(server.cfg.worker_class_str, server.cfg.worker_class)
    current = settings()
    with _usable(current.dlq_dir):
        dlq_dir.owner_warnings(current.dlq_dir)  # raises DiskError if anybody may have made it
        if current.dlq_shared:
            servers = os.path.join(current.dlq_dir, SERVERS)
            with files.disk_errors("create", servers):
                files.make_directories(os.path.dirname(current.dlq_dir), files.PASSABLE)
                files.make_private(servers)
            DeadLetterQueue(servers).probe()
        else:
            DeadLetterQueue(current.dlq_dir).create()


@contextlib.contextmanager
def _usable(dlq_dir: str) -> Iterator[None]:
    """Exit with the reason if the directory can't be used."""
    try:
        yield
    except DiskError as exc:
        print(f"estat: DLQ_DIR={dlq_dir!r} can't be used: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def when_ready(server: Any) -> None:
    """Take over what earlier lives left in the DLQ, and the signals that stop the server."""
    current = settings()
    given = current.dlq_dir
    with _usable(given):
        if current.dlq_shared:
            current = _take_directory(current)
        dlq = DeadLetterQueue(current.dlq_dir)
        leader = Leader(current.dlq_dir)
        alone = leader.lead()
        leader.release()
        journals = os.path.join(current.dlq_dir, journal.DIRECTORY)
        if os.path.lexists(journals):
            with files.disk_errors("open", journals):
                files.make_private(journals)
        directory_lock.remove_stale(journals)
        page().earlier = frozenset(directory_lock.streams(journals))
        page().adopted = inventory = dlq.inventory()
        # it may have been made by others a moment ago
        unsafe = dlq_dir.owner_warnings(given) + dlq_dir.not_followed(given)
    if not alone:
        logger.warning("dlq_dir_in_use", extra={"directory": current.dlq_dir})
    totals = inventory.totals
    row = page().rows[ARBITER]
    metrics.forget_process(row)
    Ledger(Metrics(row)).adopt(totals.events, totals.files, totals.size_bytes)
    for warning in unsafe + dlq_dir.mount_warnings(given, shared=current.dlq_shared):
        logger.warning("dlq_dir_not_safe", extra={"problem": warning})
    for name in loading.unknown_names():
        logger.warning("setting_unknown", extra=name._asdict())
    logger.info(
        "server_started",
        extra={
            "settings": loading.effective(current),
            "dlq_files": totals.files,
            "dlq_events": totals.events,
        },
    )
    stop = _Stop(server)
    server.handle_term = server.handle_int = server.handle_quit = stop.begin
    if signal.SIGTERM in signal.sigpending():  # it came before anybody could take it
        on_exit(server)
        sys.exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _take_directory(current: Settings) -> Settings:
    """Return settings with a directory of this server's own in the shared DLQ_DIR.

    Raises DiskError.
    """
    _inherited["dlq_dir"] = current.dlq_dir
    _inherited["directory"] = directory = ServerDirectory(current.dlq_dir)
    _inherited["settings"] = current = replace(current, dlq_dir=directory.path)
    DeadLetterQueue(directory.path).create()
    return current


class _Stop:
    """Stops the arbiter: gracefully on the first signal, at once on the second."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._hurried = False

    def begin(self) -> None:
        """Turn /ready red, go on serving for DRAIN_DELAY, then let gunicorn stop the workers."""
        page().state = DRAINING
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._hurry)
        drain_delay = settings().drain_delay
        logger.info("drain_started", extra={"drain_delay_seconds": drain_delay})
        until = time.monotonic() + drain_delay
        while time.monotonic() < until and not self._hurried:
            self._server.reap_workers()
            self._server.murder_workers()
            self._server.manage_workers()
            time.sleep(0.05)
        page().state = STOPPING
        if self._hurried:  # also by a signal that came a moment ago
            page().state = HURRYING
        raise StopIteration  # how gunicorn's own handler ends its main loop

    def _hurry(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if os.getpid() != self._server.pid:
            return  # a new worker, which has the arbiter's handlers until it has its own
        self._hurried = True
        page().state = HURRYING
        self._server.kill_workers(signal.SIGTERM)


def pre_fork(server: Any, worker: Any) -> None:
    """Give the new worker the lowest free slot; None if all are taken.

    gunicorn knows no way to refuse a fork: an exception here ends the server.
    """
    del server
    taken = set(_slots_taken.values())
    number = next((i for i in range(ARBITER + 1, len(page().rows)) if i not in taken), None)
    worker.estat_slot = number
    if number is None:
        _seldom.warning("worker_refused", "no_free_slot", workers=len(taken))
        return
    _slots_taken[worker.age] = number
    metrics.forget_process(page().rows[number])


def child_exit(server: Any, worker: Any) -> None:
    """Free the slot of a worker that is gone; its counters stay."""
    del server
    number = _slots_taken.pop(worker.age, None)
    if number is None:
        return
    row = page().rows[number]
    pending = Ledger(Metrics(row)).orphan()
    if pending:
        logger.error("worker_died", extra={"worker_pid": worker.pid, "events_pending": pending})
    metrics.forget_process(row)


def on_exit(server: Any) -> None:
    """Log the accounting; exit 1 if it does not close."""
    _reap_killed(server)
    for row in page().used_rows():
        Ledger(Metrics(row)).orphan()
        metrics.forget_process(row)
    _settle()
    terms = ledger.terms(page())
    logger.log(
        logging.ERROR if terms.lost else logging.INFO,
        "server_stopped",
        extra={**terms._asdict(), "lost": terms.lost},
    )
    directory: ServerDirectory | None = _inherited.get("directory")
    if terms.lost or (directory and not directory.release()):
        sys.exit(1)


def _settle() -> None:
    """Find out what of the pending events lies in journals: nothing else is left to hold them."""
    in_journals = 0
    try:
        in_journals = recovery.pending_events(settings().dlq_dir, page().earlier)
    except DiskError as exc:
        logger.error("journals_not_read", extra={"error": str(exc)})
    gone = ledger.terms(page()).pending - in_journals
    if gone > 0:
        Ledger(Metrics(page().rows[ARBITER])).settle(gone)


def _reap_killed(server: Any) -> None:
    """Wait for workers that were killed a moment ago: gunicorn reaps only what is dead already."""
    until = time.monotonic() + _REAP_SECONDS
    for pid, worker in list(server.WORKERS.items()):
        with contextlib.suppress(ChildProcessError):
            # one that hangs in the kernel on a disk does not die; it is told as lost all the same
            while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < until:
                time.sleep(0.01)
        child_exit(server, worker)


# --- in a worker


def post_fork(server: Any, worker: Any) -> None:
    """Remember the slot for the WSGI module, which is imported later; end without one."""
    del server
    if worker.estat_slot is None:
        time.sleep(_NO_SLOT_SECONDS)
        sys.exit(0)
    _inherited["slot"] = worker.estat_slot


def post_worker_init(worker: Any) -> None:
    """Start the pipeline; if a stage of it dies, save the rest and let a new worker begin."""
    worker.wsgi.pipeline.on_broken = lambda: gevent.spawn_later(
        _BROKEN_SECONDS, os.kill, os.getpid(), signal.SIGTERM
    )
    worker.wsgi.pipeline.on_taken_over = lambda: os.kill(worker.ppid, signal.SIGTERM)
    worker.wsgi.pipeline.start()
    gevent.spawn(_heed_stop, worker)
    # what lives as long as the process is no business of the garbage collector; and it runs
    # less often, for a request leaves no cycles behind: it took a fifth of the CPU
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _heed_stop(worker: Any) -> None:
    """End a worker with the server, also one that was too young to understand the SIGTERM.

    Until a new worker has its own handlers a signal ends in its copy of the arbiter's queue.
    """
    while page().state not in (STOPPING, HURRYING):
        gevent.sleep(_HEED_SECONDS)
    if worker.alive:
        os.kill(os.getpid(), signal.SIGTERM)


def worker_exit(server: Any, worker: Any) -> None:
    """Drain, unless the worker class has done so."""
    if worker.pid != os.getpid():
        # the arbiter calls this hook, and not child_exit, for a worker that it found gone
        # before it could reap it
        child_exit(server, worker)
        return
    application = getattr(worker, "wsgi", None)
    if application is not None:
        begin_drain(worker).finish()


def begin_drain(worker: Any) -> "Drain":
    """Start the worker's drain, or return the one that is under way."""
    drain: Drain | None = getattr(worker, "estat_drain", None)
    if drain is None:
        drain = worker.estat_drain = Drain(worker.wsgi.pipeline)
    return drain


class Drain:
    """One worker's drain and its clock, which starts now.

    A third of the time belongs to requests in flight, the next to uploads, and
    the last to the disk.
    """

    def __init__(self, pipeline: Any) -> None:
        current = pipeline.settings
        seconds = current.shutdown_timeout - current.drain_delay
        seconds -= min(1.0, seconds / 5)  # the arbiter's own steps
        now = time.monotonic()
        self._pipeline = pipeline
        self._finished = False
        self.requests_until = now + seconds / 3
        self._upload_until = now + 2 * seconds / 3
        self._deadline = now + seconds
        pipeline.flush()

    @property
    def hurried(self) -> bool:
        """Whether a second signal asked to go to disk at once."""
        return page().state == HURRYING

    def finish(self) -> None:
        """Empty the pipeline. Call it when no request is in flight any more."""
        if self._finished:
            return
        self._finished = True
        watch = gevent.spawn(self._watch_hurry)
        left = self._pipeline.drain(
            self._upload_until, self._deadline, last=page().state == STOPPING
        )
        watch.kill(block=False)
        logger.log(logging.ERROR if left else logging.INFO, "worker_drained", extra={"left": left})

    def _watch_hurry(self) -> None:
        while not self.hurried:
            gevent.sleep(0.05)
        self._pipeline.hurry()
