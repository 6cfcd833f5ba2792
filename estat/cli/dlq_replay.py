"""``estat dlq replay``: stores now what lies in the DLQ, exactly once.

By the server's own rule (see ``delivery``): each file under its lock, to the bucket
and key that it names, after a look at what is there; deleted only once its events
are stored. A crash or Ctrl-C between the two leaves the file, and the next replay
finds its ids stored. Quarantine is left alone: nothing in there can be trusted. So are
journals: the server recovers those of dead processes at its next start.

``--dry-run`` asks the store with one HEAD for each file, takes no lock and writes nothing.
"""

import argparse
import contextlib
import errno
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial

import gevent
from gevent import monkey
from gevent.pool import Pool

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.audit import dlq_reader
from estat.audit.dlq_reader import Gone, Journal
from estat.audit.reader import attempt
from estat.cli.dlq_files import Outcomes, check_may_take, counted, relative, select_files
from estat.cli.output import progress, say
from estat.config import loading
from estat.config.settings import Settings
from estat.disk import dlq_dir, dlq_file
from estat.disk.dlq import QUARANTINE, DeadLetterQueue, Entry
from estat.errors import DiskError, EstatError, StoreError, Unreadable
from estat.events.batch import Batch
from estat.pipeline import found_object
from estat.pipeline.delivery import Delivery
from estat.stores import PATIENT_SECONDS, Stores

_CONCURRENCY = 4  # as the server's own replay

#: Failures in a row after which a bucket is taken for down, and its other files are left alone.
_GIVE_UP = 10

_RETRY_CAP_SECONDS = 2.0

_STORED, _FAILED, _SKIPPED, _GONE = "stored", "failed", "skipped", "gone"

_TO_BE_STORED, _ALREADY, _COMPARED = "to be stored", "already stored", "to be compared"
_CAN_NOT = "can't be replayed"


def replay(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Store files now, exactly once, and delete each after that.

    Also those whose time has not come, the oldest batch first, each under its
    own bucket and key. Uses the server's settings. For a stopped server, or a
    DLQ copied from a lost host: a running server replays by itself. Exit
    status: 0 if all are stored.

    Example: estat dlq replay --dry-run
    """
    # A deadline (S3_TIMEOUT) cuts an attempt off only where the blocking call yields to
    # gevent, as in the server: boto's own timeouts bound a connect or a read each, not the
    # whole, and no name lookup. Several attempts at a time come with it. It may be done
    # this late because boto3 is imported with the first bucket, and only this process's
    # main thread runs yet.
    monkey.patch_all()
    hub = gevent.get_hub()
    # neither Ctrl-C nor a reader that went away is a fault to print
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt, BrokenPipeError)
    settings = loading.load()
    stores = Stores(settings, args.also)
    with dlq_dir.acting_as_owner(dlq.root):
        entries = select_files(dlq, args.files)
        if not args.dry_run:
            check_may_take(dlq, args)
    if not args.files:
        entries = [entry for entry in entries if entry.area != QUARANTINE]
    if args.dry_run:
        code = _dry_run(dlq, stores, paced(entries, args.rate))
    else:
        code = Replay(dlq, stores, settings).run(entries, args.rate)
    with dlq_dir.acting_as_owner(dlq.root):
        _tell_of_journals(dlq)
    return code


def _tell(outcomes: Outcomes, *names: str) -> None:
    """Print the sum of each outcome that there is, and of the first in any case."""
    for name in names:
        if outcomes.files[name] or name == names[0]:
            say(f"{name}: {outcomes.sum(name)}")


def _tell_of_journals(dlq: DeadLetterQueue) -> None:
    """Print how many journals of dead processes are left: no replay takes them."""
    outcomes = Outcomes()
    for entry in dlq_reader.journals(dlq.root):
        journal = Journal(entry)
        with contextlib.suppress(Gone):
            if not journal.is_owned:
                outcomes.add("left", journal.events)
    if outcomes.files:
        say(
            f"note: journals of dead processes are left alone: {outcomes.sum('left')}; "
            "a server that starts on the directory recovers them"
        )


def _dry_run(dlq: DeadLetterQueue, stores: Stores, entries: Iterable[Entry]) -> int:
    """Print a line for each file, then the sums; return 1 if one can't be replayed."""
    outcomes = Outcomes()
    for entry in entries:
        try:
            verdict, target = _look(dlq, stores, entry)
        except Gone:
            continue
        except EstatError as exc:
            verdict, target = _CAN_NOT, str(exc)
        outcomes.add(verdict, entry.events)
        say(f"{verdict}: {relative(dlq, entry)} ({counted(1, entry.events)}): {target}")
    _tell(outcomes, _TO_BE_STORED, _ALREADY, _COMPARED, _CAN_NOT)
    if outcomes.files[_COMPARED]:
        say(
            f'"{_COMPARED}": another object has the key; the ids that it lacks go up beside it, '
            "and one that was cut off is replaced"
        )
    say("dry run: nothing was sent or deleted")
    return 1 if outcomes.files[_CAN_NOT] else 0


def _look(dlq: DeadLetterQueue, stores: Stores, entry: Entry) -> tuple[str, str]:
    """Return what a replay would find. Raises Gone, StoreError, Unreadable and DiskError."""
    with dlq_dir.acting_as_owner(dlq.root):
        data = dlq_reader.found(entry).data
    if entry.area == QUARANTINE:
        raise Unreadable("it lies in quarantine")
    batch = dlq_file.read(entry.name, data)
    is_directory = batch.bucket.startswith("file:")
    target = f"{'' if is_directory else 's3://'}{batch.bucket}/{batch.key}"
    # boto's own timeouts are bound enough for a question
    with dlq_dir.acting_as_owner(dlq.root, is_directory):
        there = stores.get(batch.bucket).head(batch.key)
    if there is None:
        return _TO_BE_STORED, target
    return (_ALREADY if found_object.covers(there, batch) else _COMPARED), target


class Replay:
    """One run over a list of files."""

    def __init__(self, dlq: DeadLetterQueue, stores: Stores, settings: Settings) -> None:
        self._dlq = dlq
        self._stores = stores
        self._outcomes = Outcomes()
        counts = Metrics(metrics.page().rows[0])
        # no bucket is "", so the breaker, which knows of one bucket, has no part in this
        self._delivery = Delivery(stores, "", settings.s3_timeout, counts)
        self._retries = settings.s3_app_retries
        self._failures: Counter[str] = Counter()  # in a row, by bucket
        self._total = 0

    def run(self, entries: list[Entry], rate: float | None) -> int:
        """Try each file once, in order, at most ``rate`` a second; return the exit code."""
        self._total = len(entries)
        # root can act as one user at a time only
        pool = Pool(_CONCURRENCY if os.getuid() else 1)
        interrupted = False
        try:
            # a file's turn comes when somebody can take it
            takable = (entry for entry in entries if pool.wait_available())
            for entry in paced(takable, rate):
                pool.spawn(self._one, entry)
            pool.join()
        except KeyboardInterrupt:
            interrupted = True
            pool.kill()
        files = self._outcomes.files
        _tell(self._outcomes, _STORED, _FAILED, _SKIPPED, _GONE)
        if interrupted:
            say("interrupted: the other files are still there")
            return 130
        return 1 if files[_FAILED] or files[_SKIPPED] else 0

    def _one(self, entry: Entry) -> None:
        """Replay one file and take note of how that went."""
        try:
            outcome, why = self._replay(entry)
        except Exception as exc:  # noqa: BLE001 - else it would end in a greenlet, uncounted
            outcome, why = _FAILED, str(exc) if isinstance(exc, EstatError) else repr(exc)
        self._outcomes.add(outcome, entry.events)
        if why:
            say(f"{outcome} {relative(self._dlq, entry)}: {why}")
        files = self._outcomes.files
        text = f"{files[_STORED]} stored, {files[_FAILED]} failed"
        progress.update(files.total(), self._total, lambda: text)

    def _replay(self, entry: Entry) -> tuple[str, str]:
        """Store one file's batch and delete the file. Raises StoreError, Unreadable, DiskError."""
        if entry.area == QUARANTINE:
            return _FAILED, "it lies in quarantine: its content can't be trusted"
        # read in the main thread: no other work waits for the disk here
        with dlq_dir.acting_as_owner(self._dlq.root):
            claim = self._dlq.claim(entry)
            if claim is None:
                if os.path.lexists(entry.path):
                    return _SKIPPED, "in use: somebody else is sending it"
                return _GONE, ""
        with claim:
            with dlq_dir.acting_as_owner(self._dlq.root):
                batch = claim.read()
            if self._failures[batch.bucket] >= _GIVE_UP:
                return _SKIPPED, ""  # told when the last of them failed
            with dlq_dir.acting_as_owner(self._dlq.root, batch.bucket.startswith("file:")):
                self._deliver(batch)
            try:
                with dlq_dir.acting_as_owner(self._dlq.root):
                    claim.remove()
            except DiskError as exc:
                if exc.errno != errno.ENOENT:
                    raise
                # a server has taken its directory over, and will find it stored
        return _STORED, ""

    def _deliver(self, batch: Batch) -> None:
        """Store a batch, with as many attempts as a fresh one has. Raises StoreError."""
        credentials = self._stores.credentials(batch.bucket)
        if credentials:
            # beside the attempts' time, which they may take longer than
            credentials.wait(PATIENT_SECONDS)
        send = partial(self._delivery.attempt, batch, recovered=True)
        try:
            attempt(send, 1 + self._retries, _RETRY_CAP_SECONDS)
        except StoreError:
            self._failures[batch.bucket] += 1
            if self._failures[batch.bucket] == _GIVE_UP:
                say(f"{batch.bucket} failed {_GIVE_UP} times in a row: no more files are sent")
            raise
        self._failures[batch.bucket] = 0


def paced(entries: Iterable[Entry], rate: float | None) -> Iterator[Entry]:
    """Yield the files, at most ``rate`` a second."""
    following = time.monotonic()
    for entry in entries:
        if rate:
            gevent.sleep(max(0.0, following - time.monotonic()))
            # never a burst to make up for slow ones
            following = max(following, time.monotonic()) + 1 / rate
        yield entry
