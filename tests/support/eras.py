"""The part of a server that writes to disk, without its loops: one step at a time.

Real are the collector, the journals, the spill, the DLQ and the recovery; the disk
is a ``Tape``. Steps come from the test, which also says when a call fails, when the
process dies and when the power goes. ``Books`` tell what the server has promised.
"""

import gzip
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.config import loading
from estat.config.durability import Durability
from estat.disk import directory_lock, dlq, files, journal, locks, whole_file
from estat.disk.dlq import EXPIRED, PENDING
from estat.disk.journal import Journals
from estat.errors import DiskError, Refused
from estat.events import ids
from estat.events.batch import Batch
from estat.pipeline import collector
from estat.pipeline.open_batch import OpenBatch
from estat.pipeline.queue import Submission
from estat.pipeline.uploader import Spill, Upload
from tests.support.parts import Parts
from tests.support.tape import Killed, Tape

DLQ_DIR = "var/dlq"  # var is new, too

_PAGE = metrics.page()
_SETTINGS = loading.load(
    {"RAW_BUCKET": "events", "BATCH_SIZE": "4", "INSTANCE_ID": "web-1", "FLUSH_INTERVAL": "1h"},
    env_file="",
)


@contextmanager
def on(tape: Tape) -> Iterator[None]:
    """Let the server's code work on a tape, by its clock, with streams in order."""
    clock = SimpleNamespace(
        time=tape.time, monotonic=time.monotonic, strftime=time.strftime, gmtime=time.gmtime
    )
    with ExitStack() as patches:
        for module in (files, whole_file, locks, journal, directory_lock, dlq):
            patches.enter_context(patch.object(module, "os", tape))
        patches.enter_context(patch.object(files, "open", tape.open_file, create=True))
        patches.enter_context(patch.object(dlq, "time", clock))
        patches.enter_context(patch.object(collector, "time", clock))
        patches.enter_context(patch.object(journal, "Offload", AtOnce))
        patches.enter_context(patch.object(ids, "new_stream", tape.new_stream))
        yield


class AtOnce:
    """Threads for those who do not want any."""

    def __init__(self, threads: int = 1) -> None:
        del threads

    def run(self, work: Callable[..., Any], *args: object) -> Any:
        return work(*args)

    def start(self, work: Callable[..., Any], *args: object) -> Any:
        value = work(*args)
        return SimpleNamespace(ready=lambda: True, get=lambda: value)


@dataclass
class Books:
    """What a client and S3 know."""

    submitted: set[str] = field(default_factory=set)
    accepted: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)  # refused, and counted so
    stored: dict[str, dict[str, bytes]] = field(default_factory=dict)  # lines by key and id

    def note(self, what: str, names: list[str], key: str, lines: dict[str, bytes]) -> None:
        match what:
            case "submitted":
                self.submitted.update(names)
            case "accepted":
                self.accepted += names
            case "refused":
                self.refused.update(names)
            case "in_doubt":
                self.in_doubt.update(names)
            case "stored":
                for identifier, line in lines.items():
                    assert self.stored.setdefault(key, {}).setdefault(identifier, line) == line


def note(tape: Tape, what: str, *names: str, key: str = "", payload: bytes = b"") -> None:
    tape.mark((what, list(names), key, lines_of(payload) if payload else {}))


def lines_of(payload: bytes) -> dict[str, bytes]:
    """Return a batch's lines by id."""
    lines = gzip.decompress(payload).splitlines()
    found = {json.loads(line)["id"]: line for line in lines}
    assert len(found) == len(lines), "an id twice in one batch"
    return found


class _Request(Submission):
    __slots__ = ("names", "tape")

    def __init__(self, tape: Tape, names: list[str]) -> None:
        super().__init__(b',"body":', [b'{"n":"%b"}' % name.encode() for name in names])
        self.names = names
        self.tape = tape
        note(tape, "submitted", *names)

    def settle(self, refused: Refused | None = None) -> None:
        note(self.tape, "refused" if refused else "accepted", *self.names)
        super().settle(refused)


class _Admission:
    """There is always room; errors are remembered."""

    failing = out_of_space = drop_oldest = False
    max_bytes = 10**9

    def __init__(self) -> None:
        self.errors: list[DiskError] = []

    def failed(self, error: DiskError) -> None:
        self.errors.append(error)

    def expose(self, change_bytes: int, files: int = 0) -> None:
        del change_bytes, files

    def refusal(self, error: DiskError) -> Refused:
        return Refused("disk_error", str(error))


class _Sealer:
    """Holds sealed batches until the test says what becomes of them."""

    def __init__(self, journals: Journals, counts: Metrics) -> None:
        self.waiting: deque[Upload] = deque()
        self._journals = journals
        self._counts = counts

    def submit(self, open_batch: OpenBatch) -> None:
        batch = open_batch.seal(cast("Any", AtOnce()), self._counts)
        self.waiting.append(Upload(batch, open_batch.journal))
        if open_batch.journal:
            with suppress(DiskError):
                self._journals.seal(open_batch.journal, batch.events)


class Life:
    """One life of the process."""

    def __init__(self, tape: Tape, durability: str) -> None:
        root = os.path.join(tape.root, DLQ_DIR)
        settings = replace(_SETTINGS, dlq_dir=root, durability=Durability(durability))
        parts = Parts(settings, _PAGE, threads=AtOnce())
        parts.admission = self.admission = _Admission()
        parts.leader = SimpleNamespace(lead=lambda: True)
        parts.sealer = self._sealer = _Sealer(parts.journals, parts.counts)
        self.started = False
        self.dlq = parts.dlq
        self._tape = tape
        self._counts, self._journals = parts.counts, parts.journals
        self._collector, self._recovery = parts.collector, parts.recovery
        self._spill = Spill(parts.disk, parts.journals, parts.accounts)

    def start(self) -> None:
        self.dlq.create()
        self.started = True

    def send(self, *requests: list[str]) -> None:
        """Let requests be collected together."""
        in_doubt = self._counts.row.cells[metrics.IN_DOUBT]
        waiting: deque[Submission] = deque(_Request(self._tape, names) for names in requests)
        while waiting:
            before = list(waiting)
            self._collector.collect(waiting)
            taken = [request for request in before if request not in waiting]
            now = self._counts.row.cells[metrics.IN_DOUBT]
            if now > in_doubt:
                names = [n for request in taken for n in cast("_Request", request).names]
                assert now - in_doubt == len(names), "each event in doubt is counted"
                note(self._tape, "in_doubt", *names)
                in_doubt = now

    def seal(self) -> None:
        self._collector.seal()

    def store(self) -> None:
        """Let the oldest batch arrive in S3."""
        if self._sealer.waiting:
            batch, journal, _ = self._sealer.waiting.popleft()
            self._land(batch)
            if journal:
                self._journals.finish(journal)

    def store_unheard(self) -> None:
        """Let the oldest batch arrive in S3, without an answer."""
        if self._sealer.waiting:
            self._land(self._sealer.waiting[0].batch)

    def spill(self) -> None:
        """Write the oldest batch to the DLQ."""
        if self._sealer.waiting:
            batch, journal, _ = self._sealer.waiting[0]
            self._spill.spill(batch, "put_failed", "", journal)
            self._sealer.waiting.popleft()

    def mend(self) -> None:
        self._journals.mend()

    def recover(self) -> None:
        self._recovery.turn()

    def replay(self) -> None:
        """Let the oldest DLQ file arrive in S3."""
        for entry in self.dlq.scan(PENDING, 10**11).due[:1]:
            claim = self.dlq.claim(entry)
            assert claim
            with claim:
                self._land(claim.read())
                claim.remove()

    def defer(self) -> None:
        """Put the oldest DLQ file off to the next hour."""
        for entry in self.dlq.scan(PENDING, self._tape.now).due[:1]:
            claim = self.dlq.claim(entry)
            assert claim
            with claim:
                self.dlq.defer(claim, self._tape.now)

    def stop(self) -> None:
        """End in order: everything goes to disk."""
        self.seal()
        for _ in range(len(self._sealer.waiting)):
            self.spill()
        self._journals.close()

    def in_dlq(self) -> list[Batch]:
        """Read every file in the DLQ; each must be whole."""
        found = []
        for area in (PENDING, EXPIRED):
            for entry in self.dlq.scan(area, 10**11).due:
                claim = self.dlq.claim(entry)
                assert claim
                with claim:
                    found.append(claim.read())
        return found

    def _land(self, batch: Batch) -> None:
        note(self._tape, "stored", key=batch.key, payload=batch.payload)


class Era:
    """Lives one after the other, from one power failure to the next."""

    def __init__(self, tape: Tape, durability: str, names: "itertools.count[int]") -> None:
        self.tape = tape
        self._durability = durability
        self._names = names
        self._life: Life | None = None

    def take(self, step: tuple[Any, ...]) -> None:
        """Take one step, in a new life if the last one is over."""
        what, *args = step
        match what:
            case "fault":
                self.tape.fail(*args)
            case "kill":
                self.tape.kill_after(*args)
            case "hour":
                self.tape.now += 3600
            case _:
                self._live(what, args)

    def _live(self, what: str, args: list[Any]) -> None:
        try:
            if self._life is None:
                self._life = Life(self.tape, self._durability)
                self._life.start()
            self._do(self._life, what, args)
        except DiskError:
            if self._life and not self._life.started:
                self._end()
        except Killed:
            self._end()

    def _do(self, life: Life, what: str, args: list[Any]) -> None:
        match what:
            case "send":
                life.send(*([f"e{next(self._names)}" for _ in range(n)] for n in args))
            case "stop":
                life.stop()
                self._end()
            case _:
                getattr(life, what)()

    def _end(self) -> None:
        self._life = None
        self.tape.bury()
