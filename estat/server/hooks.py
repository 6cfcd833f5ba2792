"""gunicorn's hooks: what the arbiter and its workers do besides serving.

- The arbiter reads the settings, maps the shared page, makes the server's directory (see
  ``own_directory``), gives each worker a slot, and at the end logs the accounting.
- A worker starts its pipeline. ``EstatWorker`` drains by itself as soon as a signal comes;
  for gunicorn's stock worker the worker_exit hook does it.

How a stop goes, step by step, is in ``drain``.
"""

import contextlib
import gc
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from errno import EACCES, EINVAL, ELOOP, ENAMETOOLONG, ENOTDIR, EPERM
from typing import Any

import gevent
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from estat import build
from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import ARBITER, STOPPING
from estat.config import loading
from estat.disk import dlq_dir, files, server_directory, whole_file
from estat.errors import DiskError
from estat.log import Seldom
from estat.pipeline import recovery
from estat.server import drain, greeting, inherited, limits, log_stream, own_directory
from estat.server.arbiter import make_patient
from estat.server.inherited import page, settings
from estat.server.launch import refuse, taken, wrong_settings
from estat.server.logger import report_failures
from estat.server.worker import EstatWorker
from estat.text import shown
from estat.web.turns import FairSocket

logger = logging.getLogger(__name__)
_seldom = Seldom(logger)

_SHM = "/dev/shm"  # noqa: S108

_GC_THRESHOLDS = (20_000, 20, 50)

#: The server_stopped line of a stop whose log nobody read.
_LAST_STOP = "last-stop"

#: A worker whose stage died waits this long before it ends: the next one may die of the same.
_BROKEN_SECONDS = 1.0

#: A worker that found no free slot ends after this time, and the arbiter forks another one.
_NO_SLOT_SECONDS = 1.0

#: Errors of DLQ_DIR that do not pass by themselves: it is a file, say, or another user's.
_FOR_EVER = (EACCES, EINVAL, ELOOP, ENAMETOOLONG, ENOTDIR, EPERM)


def gunicorn_config() -> dict[str, Any]:
    """Return gunicorn's settings and hooks, for a configuration file's namespace.

    This function stays in this place under this name: operators have files that call it.
    """
    log_stream.install()
    current = inherited.load_settings()
    log_stream.count_in(page().rows[ARBITER])
    return {
        "bind": [address for address in (current.http_addr, current.metrics_addr) if address],
        "workers": current.web_concurrency,
        "worker_class": "estat.server.worker.EstatWorker",
        "logger_class": "estat.server.logger.StructuredLogger",
        "loglevel": current.log_level,
        # the strict one; "auto" takes whatever is installed
        "http_parser": "python",
        # nothing here needs what a proxy tells by these fields, so they refuse and move nothing
        "secure_scheme_headers": {},
        "forwarder_headers": "",
        "keepalive": math.ceil(current.keepalive),
        "worker_connections": max(1, limits.connections(current)),
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


# --- in the arbiter


def on_starting(server: Arbiter) -> None:
    """Refuse a wrong start and a DLQ_DIR that can't be used, before the server listens."""
    wrong = wrong_settings(server.cfg)
    if wrong:
        refuse(*wrong)
    current = settings()
    if limits.connections(current) < 1:
        refuse(*limits.too_low(current))
    occupied = list(taken(server))
    if occupied:
        refuse(*occupied, status=1)
    with _usable():
        dlq_dir.owner_warnings(inherited.dlq_dir())  # raises DiskError if anybody may have made it
        server_directory.make_place(inherited.dlq_dir())


@contextlib.contextmanager
def _usable() -> Iterator[None]:
    """Exit with the reason if DLQ_DIR can't be used, and never will; else tell it."""
    try:
        yield
    except DiskError as exc:
        if exc.errno in _FOR_EVER:
            refuse(f"DLQ_DIR={inherited.dlq_dir()!r} can't be used: {exc}", status=2)
        logger.error("dlq_dir_not_usable_yet", extra={"error": str(exc)})


def when_ready(server: Arbiter) -> None:
    """Make the server's directory, and take the signals that stop the server."""
    given = inherited.dlq_dir()
    unsafe: list[str] = []
    with _usable():
        own_directory.make()
    with _usable():
        # others may have made it since on_starting looked
        unsafe = dlq_dir.owner_warnings(given) + dlq_dir.not_followed(given)
    synced = settings().durability.synced
    _log_start(server, unsafe + dlq_dir.mount_warnings(given, synced=synced))
    make_patient(server)
    if signal.SIGTERM in signal.sigpending():  # it came before anybody could take it
        on_exit(server)
        sys.exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _log_start(server: Arbiter, unsafe: list[str]) -> None:
    for warning in unsafe:
        logger.warning("dlq_dir_not_safe", extra={"problem": warning})
    for problem in limits.too_low(settings()):
        logger.warning("host_limit_low", extra={"problem": problem})
    for name in loading.unknown_names():
        logger.warning("setting_unknown", extra=name._asdict())
    told = replace(settings(), dlq_dir=inherited.dlq_dir())
    if told.log_format == "json":
        logger.info("server_started", extra={"build": build(), "settings": loading.effective(told)})
    elif logger.isEnabledFor(logging.INFO):
        stream = log_stream.stderr()
        addresses = [str(listener) for listener in server.LISTENERS]
        lines = greeting.lines(told, addresses, interactive=stream.isatty())
        stream.write("".join(f"{shown(line)}\n" for line in lines))


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Give the new worker the lowest free slot, or None if all are taken.

    A fork can't be refused here: an exception would end the server.
    """
    taken = {other.estat_slot for other in server.WORKERS.values()} - {None}
    own_directory.replace_lost(taken)
    number = next((i for i in range(ARBITER + 1, len(page().rows)) if i not in taken), None)
    worker.estat_slot = number
    if number is None:
        _seldom.warning("worker_refused", "no_free_slot", workers=len(taken))
        return
    row = page().rows[number]
    metrics.forget_process(row)
    worker.estat_boots = row.cells[metrics.BOOTS]


def child_exit(_server: Arbiter, worker: Worker) -> None:
    """Free the slot of a worker that is gone; its counters stay."""
    number = worker.estat_slot
    if number is None:
        return
    row = page().rows[number]
    pending = Ledger(Metrics(row)).orphan()
    own_directory.worker_ended(number, pending)
    if pending:
        logger.error("worker_died", extra={"worker_pid": worker.pid, "events_pending": pending})
    if page().state < STOPPING:  # else no other process will find what this one has set aside
        metrics.forget_process(row)


def on_exit(server: Arbiter) -> None:
    """Log the accounting; exit 1 if it does not close."""
    for worker in list(server.WORKERS.values()):  # which hang in the kernel
        child_exit(server, worker)
    for row in page().used_rows():
        Ledger(Metrics(row)).orphan()
    if not own_directory.set_aside_if_lost():
        # no process is left to hold those that lie in no journal
        gone = ledger.terms(page()).pending - recovery.pending_events(settings().dlq_dir)
        if gone > 0:
            Ledger(Metrics(page().rows[ARBITER])).correct(0, 0, 0, orphans=gone)
    terms = ledger.terms(page())
    _tell_end({**terms._asdict(), "lost": terms.lost}, os.path.realpath(inherited.dlq_dir()))
    own_directory.release()
    if terms.lost:
        sys.exit(1)


def _tell_end(terms: dict[str, int], directory: str) -> None:
    """Log the accounting; where nobody reads the log, leave it in a file of ``directory``."""
    log_stream.drain()  # else there may be no room for the line that matters most
    logger.log(logging.ERROR if terms["lost"] else logging.INFO, "server_stopped", extra=terms)
    if not log_stream.drain():
        text = json.dumps({"event": "server_stopped", "time": time.time(), **terms}) + "\n"
        with contextlib.suppress(DiskError):  # then it can be told nowhere
            access = files.PRIVATE._replace(top=directory)
            whole_file.write(os.path.join(directory, _LAST_STOP), [text.encode()], access)


# --- in a worker


def post_fork(_server: Arbiter, worker: Worker) -> None:
    """Keep the slot for the WSGI module, which is imported later; end if there is none."""
    if worker.estat_slot is None:
        time.sleep(_NO_SLOT_SECONDS)
        sys.exit(0)
    inherited.set_slot(worker.estat_slot)
    log_stream.count_in(page().rows[worker.estat_slot])
    # gunicorn's own setting may ask for more than fit
    worker.worker_connections = min(worker.worker_connections, limits.connections(settings()))


def post_worker_init(worker: Worker) -> None:
    """Start the pipeline.

    If a stage of it dies, or the server's directory is lost, the worker drains and the arbiter
    forks another.
    """
    report_failures()
    if not isinstance(worker, EstatWorker):
        _be_fair(worker)
    pipeline = worker.wsgi.pipeline
    pipeline.on_broken = lambda: gevent.spawn_later(
        _BROKEN_SECONDS, os.kill, os.getpid(), signal.SIGTERM
    )
    pipeline.start()
    gevent.spawn(drain.follow_stop, worker)
    # The garbage collector took a fifth of the CPU. It need not look at what lives as long as the
    # process, nor run often: a request leaves no cycles behind.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    pipeline.counts.count(metrics.BOOTS)


def _be_fair(worker: Worker) -> None:
    """Let gunicorn's own worker, too, read and send as is fair to the other clients."""
    handle, seconds = worker.handle, settings().read_timeout
    worker.handle = lambda listener, client, address: handle(
        listener, FairSocket(client, seconds), address
    )


def worker_exit(server: Arbiter, worker: Worker) -> None:
    """Drain, unless the worker class has done so. Called in the worker, and in the arbiter too."""
    if worker.pid != os.getpid():
        # the arbiter, which calls this instead of child_exit for a worker that was gone when it
        # wanted to send it a signal
        child_exit(server, worker)
        return
    application = getattr(worker, "wsgi", None)
    if application is not None:
        drain.begin(application.pipeline).finish()
