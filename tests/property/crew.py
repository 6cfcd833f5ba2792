"""Servers on one DLQ_DIR, made of their real parts, whose processes are the kernel's.

This is the one place that knows how the arbiter and its workers are put together.
"""

import contextlib
import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Terms
from estat.accounting.shared_memory import STOPPING, SharedPage
from estat.disk import server_directory
from estat.disk.directory_lock import LOCK
from estat.disk.server_directory import LEASE_SECONDS, SERVERS
from estat.errors import DiskError, ObjectExists, Refused, StoreUnavailable
from estat.events import ids
from estat.pipeline import delivery, pipeline
from estat.pipeline.breaker import Breaker
from estat.pipeline.pipeline import Pipeline
from estat.pipeline.queue import Submission
from estat.pipeline.reconcile import Reconciliation
from estat.server import hooks, inherited, own_directory
from estat.stores.store import BYTES, Head
from tests.property.kernel import Kernel, Process, end_turn, turn
from tests.property.mortal import REAL, Fate
from tests.support.parts import load

FINE = Fate()
_NOBODY: Any = SimpleNamespace(WORKERS={})
_new_page = metrics.page
LOOPS = range(4)
_DRAIN_SECONDS = 16


class Bucket:
    """A store in memory, whose next PUT may fail, or land without an answer."""

    bare_etags = False

    def __init__(self, kernel: Kernel) -> None:
        self.next = "works"
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._kernel = kernel

    def put(
        self,
        key: str,
        body: bytes,
        crc32: int,
        content_type: str,
        metadata: dict[str, str],
        replaces: str | None = None,
    ) -> bool:
        del crc32, content_type
        answer, self.next = self.next, "works"
        if answer == "fails":
            raise StoreUnavailable("503")
        process = self._kernel.current
        assert process
        process.operate("put", partial(self._put, key, body, metadata, replaces))
        if answer == "lands":
            raise StoreUnavailable("no answer")
        return True

    def _put(self, key: str, body: bytes, metadata: dict[str, str], replaces: str | None) -> None:
        if key in self.objects and replaces is None:
            raise ObjectExists(key)
        if replaces and replaces != self._etag(key):
            raise StoreUnavailable("changed since it was read")
        self.objects[key] = body, metadata | {BYTES: str(len(body))}

    def head(self, key: str) -> Head | None:
        body, metadata = self.objects.get(key, (b"", {}))
        return Head(metadata, len(body), self._etag(key)) if key in self.objects else None

    def _etag(self, key: str) -> str:
        return hashlib.sha256(self.objects[key][0]).hexdigest() if key in self.objects else ""

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        return (key for key in sorted(self.objects) if key.startswith(prefix) and key > after)

    def get(self, key: str) -> bytes:
        return self.objects[key][0]


class Host:
    """A kernel, or one boot of it."""

    boots = 0

    def __init__(self) -> None:
        self.cut_off = False
        self.boot()

    def boot(self) -> None:
        Host.boots += 1
        self.boot_id = f"00000000-0000-4000-8000-{Host.boots:012}"


class Worker(Process):
    """A worker process: its pipeline, whose loops take their turns when they are told to."""

    pipeline: Pipeline

    def __init__(self, crew: "Crew", server: "Server", slot: int) -> None:
        super().__init__(crew.kernel, server)
        self._crew, self._server, self._slot = crew, server, slot
        self._settings, directory = inherited.settings(), inherited.directory()
        if directory:
            directory = copy.copy(directory)
            directory._descriptor = self.inherit(directory._descriptor)
        self.directory = directory
        self.loops: list[Callable[[], None]] = []
        self.drained = False

    def begin(self) -> None:
        self.pipeline = parts = Pipeline(
            self._settings, self._server.page, self._slot, self.directory
        )
        spawned: list[tuple[Any, ...]] = []
        replaced: Any = parts
        replaced._spawn = lambda *loop: spawned.append(loop)
        replaced._stores._opened = lambda _: self._crew.bucket
        replaced._sealer.submit = parts._sealer.seal
        for loop in replaced._leader_loops:
            loop._wakeup = SimpleNamespace(wait=end_turn, clear=int, set=int)
        parts.start()
        parts._collecting = parts._leading = parts._endless = []
        (watch,) = (loop for loop in spawned if loop[0] == parts._admission.watch)
        self.watch = turn(*watch)
        self.loops = [turn(loop.run) for loop in parts._leader_loops]

    def accept(self, numbers: range) -> None:
        """Take a request's events, and note what its client is told."""
        in_doubt = self._in_doubt
        self._server.unanswered += len(numbers)
        try:
            self.pipeline.accept(b',"body":', [b'{"n":%d}' % number for number in numbers])
        except Refused:
            if in_doubt == self._in_doubt:
                self._crew.refused.update(numbers)
        else:
            self._crew.accepted.update(numbers)
            self._server.accepted += len(numbers)
            self._server.check_acknowledged()
        self._server.unanswered -= len(numbers)

    @property
    def _in_doubt(self) -> int:
        return self.pipeline.counts.row.cells[metrics.IN_DOUBT]

    def collect(self) -> None:
        """Work off what waits."""
        waiting = self.pipeline._submissions.take(0)
        while waiting:
            self.pipeline._collector.collect(waiting)

    def seal(self) -> None:
        self.pipeline._collector.seal()

    def upload(self) -> None:
        uploads = self.pipeline._uploader._queue
        while not uploads.empty():
            self.pipeline._uploader.upload(uploads.get_nowait())
            uploads.task_done()

    def let_loops_end(self) -> None:
        for loop in self.pipeline._leader_loops:
            loop.end()

    def drain(self) -> None:
        self.seal()
        self.upload()
        now = self._crew.kernel.now
        self.pipeline.drain(now + _DRAIN_SECONDS / 2, now + _DRAIN_SECONDS, last=True)
        self.drained = True

    @property
    def serves(self) -> bool:
        return bool(self.loops) and not (self.dead or self.pipeline.broken or "drain" in self.steps)


class Server:
    """One run of a server: its arbiter, and the worker that there is."""

    def __init__(self, crew: "Crew", host: Host) -> None:
        self.host = host
        self.page = _new_page()
        self.accepted = self.unanswered = 0
        self.stopping = False
        self.exit_code: object = None
        self.arbiter = Process(crew.kernel, self)
        self.worker: Worker | None = None
        self._crew = crew
        self._age = 0
        self._owned_at = crew.kernel.now
        given = load(crew.root, BATCH_SIZE="6", S3_APP_RETRIES="0")
        self._memory = {
            (inherited, "_here"): inherited._Inherited(given=given),
            (own_directory, "_outdated"): {},
        }

    def remember(self) -> None:
        """Let the arbiter's modules hold what they hold in this server's processes."""
        for (module, name), value in self._memory.items():
            setattr(module, name, value)
        inherited.page.cache_clear()

    @property
    def processes(self) -> list[Process]:
        return [p for p in (self.arbiter, self.worker) if p and not p.dead]

    @property
    def terms(self) -> Terms:
        return ledger.terms(self.page)

    @property
    def not_ours(self) -> int:
        """The events that are set aside as they are, in files that are not to be sent."""
        cell = metrics.SET_ASIDE["not_ours"]
        return sum(row.read()[cell] for row in self.page.used_rows())

    def begin(self) -> None:
        with contextlib.suppress(DiskError):  # it is tried again before each fork
            own_directory.make()
        self._fork()

    def _fork(self) -> None:
        self._age += 1
        self._seat: Any = SimpleNamespace(pid=self._age)
        hooks.pre_fork(_NOBODY, self._seat)
        self.worker = Worker(self._crew, self, self._seat.estat_slot)

    def reap(self) -> None:
        """Notice that the worker has ended; fork another one, or end too."""
        self.worker = None
        hooks.child_exit(_NOBODY, self._seat)
        if not self.stopping:
            self._fork()
            return
        try:
            hooks.on_exit(_NOBODY)
        except SystemExit as exc:
            self.exit_code = exc.code

    # --- what must hold

    def check_path(self, path: str) -> None:
        """Note it if a process makes or removes what lies in a directory of another server."""
        servers = os.path.join(self._crew.dlq_dir, SERVERS, "")
        if not path.startswith(servers):
            return
        lock = os.path.join(servers, path.removeprefix(servers).partition("/")[0], LOCK)
        other = self._crew.owner_of(lock)
        if other and other is not self:
            self._crew.wrong.append(f"a change of {path}, which is of another server")

    def look(self) -> None:
        """Note when the server still had its directory."""
        directory = self.worker and self.worker.directory
        if directory and self._crew.owner_of(os.path.join(directory.path, LOCK)) is self:
            self._owned_at = self._crew.kernel.now

    def check_acknowledged(self) -> None:
        """Note it if a server acknowledges events whose directory was lost for too long."""
        self.look()
        silent_seconds = self._crew.kernel.now - self._owned_at
        if silent_seconds > LEASE_SECONDS:
            self._crew.wrong.append(f"acknowledged {silent_seconds} s after its directory was lost")


class Crew:
    """All servers there are, what they work on, and what clients know of it."""

    def __init__(self, root: str) -> None:
        self.dlq_dir = os.path.join(root, "dlq")
        self.root = root
        self.kernel = Kernel()
        self.bucket = Bucket(self.kernel)
        self.hosts = [Host(), Host()]
        self.servers: list[Server] = []
        self.accepted: set[int] = set()
        self.refused: set[int] = set()  # and certainly not kept
        self.wrong: list[str] = []
        self._streams = 0

    def __enter__(self) -> Self:
        kernel, wait = self.kernel, Submission.wait

        def clock() -> float:
            return kernel.now

        def boot_id() -> str:
            return self._owner.host.boot_id

        def page() -> SharedPage:
            return self._owner.page

        def collect_and_wait(submission: Submission) -> None:
            if isinstance(kernel.current, Worker):
                kernel.current.collect()
            wait(submission)

        with contextlib.ExitStack() as running:
            for patch in (
                kernel,
                mock.patch.object(pipeline, "Reconciliation", partial(Reconciliation, clock=clock)),
                mock.patch.object(delivery, "Breaker", partial(Breaker, clock=clock)),
                mock.patch.object(server_directory, "boot_id", boot_id),
                mock.patch.object(metrics, "page", page),
                mock.patch.object(Submission, "wait", collect_and_wait),
                mock.patch.object(ids, "new_stream", self.new_stream),
            ):
                running.enter_context(patch)
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            for process in server.processes:
                process.kill()
        self._running.close()

    @property
    def _owner(self) -> Server:
        assert self.kernel.current
        owner: Server = self.kernel.current.owner
        return owner

    def new_stream(self) -> str:
        self._streams += 1
        return f"{int(self.kernel.now * 1000):012x}{self._streams:016x}"

    def owner_of(self, lock: str) -> Server | None:
        """Return the server whose lock a file is."""
        try:
            file = REAL["stat"](lock)
        except OSError:
            return None
        having = (s for s in self.servers if any(p.has_locked(file) for p in s.processes))
        return next(having, None)

    # --- what servers do

    def start(self, host: Host, fate: Fate = FINE) -> Server:
        server = Server(self, host)
        self.servers.append(server)
        self.kernel.run(server.arbiter, "main", server.begin, fate)
        return server

    def do(self, server: Server, what: str, fate: Fate, *args: object) -> None:
        """Let the worker take a step, if there is one that serves."""
        worker = server.worker
        if worker and not worker.loops:
            self.kernel.run(worker, "begin", worker.begin, fate)
        elif worker and worker.serves:
            name = "accept" if what == "seal" else what
            self.kernel.run(worker, name, partial(getattr(worker, what), *args), fate)

    def lead(self, server: Server, loop: int, fate: Fate = FINE) -> None:
        """Let the worker take a turn of what the leader does."""
        if server.worker and server.worker.serves:
            self.kernel.run(server.worker, f"loop {loop}", server.worker.loops[loop], fate)

    def end_worker(self, server: Server, fate: Fate = FINE) -> None:
        """Let the worker drain and end."""
        worker = server.worker
        if not worker or worker.dead or worker.stopped:
            return
        if not worker.loops:
            worker.kill()
            return
        if "drain" not in worker.steps:
            worker.let_loops_end()
            self.kernel.finish(worker)
        self.kernel.run(worker, "drain", worker.drain, fate)
        self.kernel.finish(worker)
        if worker.drained:
            worker.kill()

    def attend(self, server: Server, fate: Fate = FINE) -> None:
        """Let the arbiter see to it that its worker is there, and let one end that must."""
        worker, arbiter = server.worker, server.arbiter
        is_orphan = arbiter.dead or server.stopping
        if worker and worker.loops and not worker.dead and (is_orphan or not worker.serves):
            self.end_worker(server, fate)
        if arbiter.steps or (server.worker is None or server.worker.dead):
            self.kernel.run(arbiter, "main", server.reap, fate)
            self.kernel.finish(arbiter)
            if server.stopping and not arbiter.steps and server.worker is None:
                arbiter.kill()
        if not server.processes:
            self.servers.remove(server)

    def stop(self, server: Server, fate: Fate = FINE) -> None:
        """Stop a server, in order."""
        server.stopping = True
        server.page.state = STOPPING
        self.end_worker(server, fate)
        self.attend(server)

    def work(self, server: Server) -> None:
        """Let a server do all that it has to."""
        self.attend(server)
        for what in ("watch", "seal", "upload"):
            self.do(server, what, FINE)
        for loop in LOOPS:
            self.lead(server, loop)

    def thaw(self, server: Server) -> None:
        for process in server.processes:
            process.stopped = False

    def kill(self, server: Server, *processes: Process | None) -> None:
        for process in processes:
            if process and not process.dead:
                process.kill()
        if not server.processes:
            self.servers.remove(server)
