"""One worker's parts, run step by step, on a disk that fails and in a process that dies.

A process that dies at an operation does no other one, not even in its handlers
of errors, and the kernel closes its files and so frees its locks. What was
written stays, as after ``kill -9``; what a power failure takes is not modelled.
"""

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from gevent import GreenletExit

from estat.accounting.shared_memory import SharedPage
from estat.disk.dlq import EXPIRED, PENDING
from estat.errors import DiskError, StoreUnavailable
from estat.pipeline.breaker import Breaker
from estat.pipeline.open_batch import OpenBatch
from estat.pipeline.queue import Submission
from estat.pipeline.sealer import Sealer
from estat.stores.directory import DirectoryStore
from estat.stores.store import Store
from estat.threads import Offload
from tests.support.parts import Parts, load

SLOT = 1
BATCH_EVENTS = 6

#: Shared by all lives, to spare their threads: a life that ended runs nothing.
THREADS, DISK_THREADS = Offload(2), Offload(1)

CLOSES = ("close", "closerange")
CHANGES = (
    *CLOSES,
    "open",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "truncate",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
)
REAL = {name: getattr(os, name) for name in CHANGES}

_DEATHS = ("dies", "dies_after", "dies_within")
ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO}
KINDS = (*_DEATHS, *ERRORS, "short")


class Died(GreenletExit):
    """The process is gone. It is no Exception, so nobody handles it."""


class Fate(NamedTuple):
    """What happens to a step's ``at``-th operation, and to how many if they only fail.

    With ``name`` operations of that name alone count.
    """

    kind: str = "fine"
    at: int = 0
    times: int = 1
    name: str = ""


class Disk:
    """The operations on files of one process, one or some of which fail or are its last."""

    def __init__(self) -> None:
        self.dead = False
        self._fate = Fate()
        self._open: set[int] = set()

    def plan(self, fate: Fate) -> None:
        self._fate = fate

    def heal(self) -> None:
        self._fate = Fate()

    def bury(self) -> None:
        """Close what the process had open, as the kernel does; the next one finds a good disk."""
        for descriptor in self._open:
            REAL["close"](descriptor)
        self._open.clear()
        self.dead = False
        self.heal()

    def patched(self) -> Any:
        operations: Any = {name: self._mortal(name) for name in CHANGES}
        return mock.patch.multiple(os, **operations)

    def _mortal(self, name: str) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            return self.operate(name, *args, **kwargs)

        return operation

    def operate(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Do an operation, or what its fate is."""
        if self.dead:
            if name in CLOSES:
                return None  # the kernel does it; a generator that is thrown away may not raise
            raise Died
        kind = self.next_kind(name)
        if kind in _DEATHS:
            self._die(kind, name, *args, **kwargs)
        # a file whose writes are over does not fail to be closed
        if kind in ERRORS and name not in CLOSES:
            raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]))
        if kind == "short" and name == "write":
            return _write_half(*args)
        return self._do(name, *args, **kwargs)

    def next_kind(self, name: str) -> str:
        """Return what happens to the next operation, which has a name."""
        kind, at, times, wanted = self._fate
        if kind == "fine" or (wanted and wanted != name):
            return "fine"
        if at:
            self._fate = self._fate._replace(at=at - 1)
            return "fine"
        self._fate = self._fate._replace(times=times - 1) if times > 1 else Fate()
        return kind

    def _die(self, kind: str, name: str, *args: Any, **kwargs: Any) -> None:
        self.dead = True
        with contextlib.suppress(OSError):
            if kind == "dies_after":
                self._do(name, *args, **kwargs)
            elif kind == "dies_within" and name == "write":
                _write_half(*args)
        raise Died

    def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("fsync", "fdatasync"):
            return None  # the page cache outlives the process
        result = REAL[name](*args, **kwargs)
        if name == "open":
            self._open.add(result)
        elif name in CLOSES:
            self._open.discard(args[0])
        return result


def _write_half(descriptor: int, data: bytes) -> int:
    written: int = REAL["write"](descriptor, data[: len(data) // 2])
    return written


class Outage:
    """A directory as a store whose next PUT may fail, or land without an answer."""

    def __init__(self, root: str) -> None:
        self.next = "works"
        store = DirectoryStore(root)
        store._threads = DISK_THREADS
        self._store: Store = store
        self.head, self.get = store.head, store.get

    def put(
        self,
        key: str,
        body: bytes,
        crc32: int,
        content_type: str,
        metadata: dict[str, str],
        replaces: str | None = None,
    ) -> bool:
        answer, self.next = self.next, "works"
        if answer == "fails":
            raise StoreUnavailable("503")
        self._store.put(key, body, crc32, content_type, metadata, replaces)
        if answer == "lands":
            raise StoreUnavailable("no answer")
        return True


class _Sealing:
    """Keeps what the collector gives away until the next step."""

    def __init__(self) -> None:
        self.waiting: deque[OpenBatch] = deque()
        self.submit = self.waiting.append


class Life:
    """One worker process from its fork to its end; a method does what a loop of it does once."""

    def __init__(self, root: str, durability: str, page: SharedPage, store: Outage) -> None:
        settings = load(
            root,
            DURABILITY=durability,
            BATCH_SIZE=str(BATCH_EVENTS),
            S3_APP_RETRIES="0",
            S3_TIMEOUT="60s",
        )
        self._parts = parts = Parts(settings, page, SLOT, DISK_THREADS)
        parts.stores = SimpleNamespace(get=lambda bucket: store)
        parts.delivery.breaker = Breaker(parts.counts, lambda: 0.0)  # once open, a replay closes it
        parts.journals._appender = parts.journals._housekeeping = DISK_THREADS
        self.counts, self.dlq, self.compare = parts.counts, parts.dlq, parts.compare
        self._sealer = Sealer(parts.uploader, parts.journals, parts.accounts, THREADS)
        self._sealing = parts.sealer = _Sealing()
        self._collector, self._uploader = parts.collector, parts.uploader
        self._collector._encoder = THREADS
        # made before the disk fails
        self._recovery, self._replayer = parts.recovery, parts.replayer

    def collect(self, waiting: deque[Submission]) -> None:
        """Take in one group of what waits."""
        self._collector.collect(waiting)

    def seal(self) -> None:
        """Finish every batch."""
        self._collector.seal()
        while self._sealing.waiting:
            self._sealer.seal(self._sealing.waiting.popleft())

    def upload(self) -> None:
        """Take one batch to the store, or to the DLQ."""
        self._uploader.upload(self._uploader._queue.get_nowait())

    def mend(self) -> None:
        """Try again what the disk refused."""
        for repair in (self._parts.journals.mend, self._uploader.resume):
            try:
                repair()
            except DiskError as exc:
                self._parts.admission.failed(exc)
        self._parts.admission.refresh()

    def look(self) -> None:
        """Look for dead streams and recover their journals."""
        try:
            self._recovery.turn()
        except DiskError as exc:
            self._parts.admission.failed(exc)

    def replay(self, now: float) -> None:
        """Replay each file of the DLQ."""
        try:
            self._replayer.store_quarantined()
            for area in (PENDING, EXPIRED):
                for entry in self.dlq.scan(area, now).due:
                    self._replayer.replay(entry)
        except DiskError as exc:
            self._parts.admission.failed(exc)

    def drain(self) -> None:
        """Stop in order: what could go nowhere stays in its journal."""
        self.seal()
        while self.uploading:
            self.upload()
        self._parts.journals.close()

    @property
    def streams(self) -> set[str]:
        return {stream.name for stream in self._collector.streams}

    @property
    def collecting(self) -> bool:
        return bool(self._collector._batch or self._sealing.waiting)

    @property
    def uploading(self) -> bool:
        return not self._uploader._queue.empty()

    @property
    def broken(self) -> bool:
        """Whether the disk refused something that is to be tried again."""
        journals, admission = self._parts.journals, self._parts.admission
        return bool(
            admission.failing
            or admission.out_of_space
            or self._uploader._journals_left
            or journals._finished
            or journals._doubtful
        )
