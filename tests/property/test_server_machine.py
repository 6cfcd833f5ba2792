"""Servers on one DLQ_DIR against a model: whatever becomes of them, each event is stored once.

To run it for longer, from a seed:

    SEED=7 HISTORIES=5000 python -m pytest tests/property/test_server_machine.py

With NOSHRINK=1 the first history that fails is told as it is, which takes no further time.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from estat.audit.hour import COMPLETE, GAP, HourReport, read_hour
from estat.audit.reader import Reader
from estat.audit.target import Target
from estat.disk import dlq_file, journal_file
from estat.disk.directory_lock import LOCK
from estat.disk.dlq import DeadLetterQueue
from estat.disk.journal_file import Header
from estat.disk.slots import slot_of
from estat.events import gzip, ids
from estat.events.batch import Batch, crc32_of
from estat.events.closed_hour import CLOSED
from tests.property.crew import FINE, LOOPS, Crew, Host, Server
from tests.property.found import Found, events_in, events_in_journal, files_below, read, read_gzip
from tests.property.kernel import Process
from tests.property.mortal import KINDS, Fate
from tests.support import layouts
from tests.support.examples import examples

pytestmark = pytest.mark.interpreted

MOST_SERVERS = 3
ROUNDS = 60

seats = st.integers(0, MOST_SERVERS - 1)
hosts = st.integers(0, 1)
answers = st.sampled_from(["works", "fails", "lands"])
operations = ["", "", "", "rename", "rename", "unlink", "open", "flock", "write", "mkdir", "rmdir"]
fates = st.just(FINE) | st.builds(
    Fate,
    st.sampled_from(["stops", "waits", "waits", "stops", *KINDS]),
    st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 8, 13, 21, 34]),
    st.integers(1, 3),
    st.sampled_from([*operations, "pwrite", "put", "ftruncate"]),
)


class Surprises(logging.Handler):
    """Keeps what is logged of errors that nobody expected."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.levelno >= logging.ERROR:
            self.told.append(self.format(record))


class Hour(NamedTuple):
    """An hour in the bucket: the revisions of its markers, and the ids in its objects."""

    part: str
    revisions: Counter[str]
    ids: set[tuple[str, int]]


class ServerMachine(RuleBasedStateMachine):
    """What became of each event, told by the number in its body."""

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.root = tempfile.mkdtemp(prefix="estat-", dir=memory)
        self.away = os.path.join(self.root, "away")
        self.events = 0
        self.foreign: list[str] = []  # names of files that are not ours to send
        self.unknown: list[str] = []
        #: Each hour that was complete, as it was first with its last revisions.
        self.complete: dict[str, Hour] = {}
        self.surprises = Surprises()
        logging.getLogger("estat").addHandler(self.surprises)
        self.crew = Crew(self.root).__enter__()
        self.dlq_dir = self.crew.dlq_dir

    # --- what servers do

    @initialize()
    def begin(self) -> None:
        for host in self.crew.hosts:
            self.crew.work(self.crew.start(host))

    @precondition(lambda self: len(self.crew.servers) < MOST_SERVERS)
    @rule(host=hosts, fate=fates)
    def start(self, host: int, fate: Fate) -> None:
        if not self.crew.hosts[host].cut_off:
            self.crew.start(self.crew.hosts[host], fate)

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats, sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), fate=fates)
    def accept(self, seat: int, sizes: list[int], fate: Fate) -> None:
        for size in sizes:
            self.crew.do(self.server(seat), "accept", fate, self.numbers(size))
            fate = FINE

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats, what=st.sampled_from(["seal", "upload", "watch"]), answer=answers, fate=fates)
    def do(self, seat: int, what: str, answer: str, fate: Fate) -> None:
        with self.answering(answer):
            self.crew.do(self.server(seat), what, fate)

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats, loop=st.sampled_from(LOOPS), answer=answers, fate=fates)
    def lead(self, seat: int, loop: int, answer: str, fate: Fate) -> None:
        with self.answering(answer):
            self.crew.lead(self.server(seat), loop, fate)

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats, fate=fates)
    def attend(self, seat: int, fate: Fate) -> None:
        self.crew.attend(self.server(seat), fate)

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats)
    def work(self, seat: int) -> None:
        self.crew.work(self.server(seat))

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats, answer=answers, fate=fates)
    def stop(self, seat: int, answer: str, fate: Fate) -> None:
        with self.answering(answer):
            self.crew.stop(self.server(seat), fate)

    # --- what happens to them

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats, who=st.sampled_from(["all", "worker", "arbiter"]))
    def kill(self, seat: int, who: str) -> None:
        server = self.server(seat)
        chosen: dict[str, list[Process | None]] = {
            "all": [server.arbiter, server.worker],
            "worker": [server.worker],
            "arbiter": [server.arbiter],
        }
        self.crew.kill(server, *chosen[who])

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats, stopped=st.booleans())
    def stand_still_or_go_on(self, seat: int, stopped: bool) -> None:
        server = self.server(seat)
        for process in server.processes:
            process.stopped = stopped or server.host.cut_off

    @precondition(lambda self: self.crew.servers)
    @rule(seat=seats, what=st.sampled_from(["cut off", "cut off", "boots"]))
    def host(self, seat: int, what: str) -> None:
        """Let a host boot, or lose the volume, and the volume the host's locks."""
        host = self.server(seat).host
        host.cut_off = what == "cut off"
        for server in self.on(host):
            if not host.cut_off:
                self.crew.kill(server, server.arbiter, server.worker)
            for process in server.processes:
                process.stopped = True
                process.lose_locks()
        if not host.cut_off:
            host.boot()

    @precondition(lambda self: any(host.cut_off for host in self.crew.hosts))
    @rule()
    def reconnect(self) -> None:
        # a volume keeps locks for longer than a lease before it gives them up
        self.pass_time(25)
        for host in self.crew.hosts:
            host.cut_off = False
        for server in self.crew.servers:
            self.crew.thaw(server)

    @rule(seconds=st.sampled_from([1, 6, 15, 19, 22, 65, 130, 4000, 100_000]), work=st.booleans())
    def pass_time(self, seconds: int, work: bool = False) -> None:
        self.crew.kernel.now += seconds
        self.age(seconds)
        for server in list(self.crew.servers) if work else ():
            self.crew.work(server)

    @rule(seconds=st.sampled_from([-90_000, -4000, -1800, 1800, 4000, 90_000]))
    def step_clock(self, seconds: int) -> None:
        self.crew.kernel.wrong_by += seconds

    @precondition(lambda self: os.path.exists(self.dlq_dir))
    @rule(what=st.sampled_from([-90_000, -100, -30, 30, 100, 90_000, "is away", "is another one"]))
    def volume(self, what: int | str) -> None:
        """Step the volume's clock, or take the volume away."""
        if isinstance(what, int):
            self.age(what)
        elif not os.path.exists(self.away):
            os.rename(self.dlq_dir, self.away)
            if what == "is another one":
                os.mkdir(self.dlq_dir)

    @precondition(lambda self: os.path.exists(self.away))
    @rule()
    def bring_volume_back(self) -> None:
        """Bring it back; what was written to another one meanwhile is put there as well."""
        other = os.path.join(self.root, "other")
        if os.path.exists(self.dlq_dir):
            os.rename(self.dlq_dir, other)
        os.rename(self.away, self.dlq_dir)
        if os.path.exists(other):
            os.makedirs(os.path.join(self.dlq_dir, "servers"), exist_ok=True)
            for path in Path(other, "servers").glob("*"):
                path.rename(os.path.join(self.dlq_dir, "servers", path.name))
            self.merge_flat(other)
            shutil.rmtree(other)

    @precondition(lambda self: self.directories())
    @rule(choice=st.integers(0, 99), which=st.sampled_from(["server", "stream", "leader"]))
    def delete_lock(self, choice: int, which: str) -> None:
        directory = self.choose(choice)
        names = {"server": LOCK, "stream": f"journal/*/{LOCK}", "leader": "leader.lock"}
        for path in directory.glob(names[which]):
            path.unlink()

    # --- what appears

    @rule(layout=st.sampled_from([layouts.flat, layouts.with_heartbeat]), boot=st.integers(0, 2))
    def earlier_layout(self, layout: Callable[[Path, str], None], boot: int) -> None:
        """Let a directory be there that a server of an earlier version left."""
        scratch = Path(self.root, "scratch")
        stream = self.crew.new_stream()
        own = scratch / "servers" / stream
        DeadLetterQueue(str(own)).create()
        self.put_dlq_file(own, self.batch(stream, 1, self.numbers(3)))
        journal = own / "journal" / stream
        journal.mkdir(parents=True)
        (journal / LOCK).touch()
        numbers = self.numbers(2)
        batch = self.batch(stream, 4, numbers)
        header = Header(batch.bucket, batch.key, batch.name, stream, 4, batch.opened)
        lines = gzip.gunzip(batch.payload).splitlines(keepends=True)
        (journal / "000002.journal").write_bytes(
            journal_file.pack_header(header) + journal_file.pack_group(lines)
        )
        self.crew.accepted.update(range(numbers.start - 3, numbers.stop))
        layout(scratch, self.crew.hosts[boot].boot_id if boot < 2 else "another boot")
        Path(self.dlq_dir, "servers").mkdir(parents=True, exist_ok=True)
        for path in scratch.glob("servers/*"):
            path.rename(os.path.join(self.dlq_dir, "servers", path.name))
        self.merge_flat(str(scratch))
        shutil.rmtree(scratch)

    @precondition(lambda self: self.directories())
    @rule(choice=st.integers(0, 99), kind=st.sampled_from(["foreign", "garbage", "unknown"]))
    def strange_file(self, choice: int, kind: str) -> None:
        directory = self.choose(choice)
        if kind == "unknown":
            self.unknown.append(f"notes{len(self.unknown)}.txt")
            (directory / self.unknown[-1]).write_text("not ours")
            return
        batch = self.batch(self.crew.new_stream(), 1, range(-3, 0), bucket="file:/elsewhere")
        path = self.put_dlq_file(directory, batch)
        if kind == "foreign":
            self.foreign.append(path.name)
        else:
            path.write_bytes(b"garbage")

    # --- what holds

    @invariant()
    def every_accepted_event_is_somewhere_and_the_accounting_closes(self) -> None:
        names: dict[str, int] = {}
        for event, number in (*self.in_store(), *self.on_disk()):
            assert names.setdefault(event, number) == number or number < 0
        missing = self.crew.accepted - set(names.values())
        assert not missing, f"lost: {missing}"
        stored = [number for _, number in self.in_store()]
        assert not [number for number, times in Counter(stored).items() if times > 1]
        assert not self.crew.refused & set(stored)
        assert all(number >= 0 for number in stored), "what is not ours is not sent"
        assert not self.crew.wrong, self.crew.wrong
        assert not self.surprises.told, self.surprises.told
        for server in self.crew.servers:
            server.look()
            assert server.terms.lost == 0, server.terms

    @invariant()
    def a_revision_never_goes_down_and_no_id_that_was_told_is_missing(self) -> None:
        for hour, report in self.hours():
            before = self.complete.get(hour.part, hour)
            assert not before.revisions - hour.revisions
            assert before.ids <= hour.ids
            assert report.state != GAP, report.as_lines()
            if report.state == COMPLETE:
                grown = hour.revisions != before.revisions
                self.complete[hour.part] = hour if grown else before

    def check_hours(self) -> None:
        """Check that every hour is closed, and that none that was complete grew by stealth.

        Who took events and could not say so yet says it later, with a marker of its own.
        """
        for hour, report in self.hours():
            before = self.complete.get(hour.part, hour)
            assert before.ids == hour.ids or hour.revisions - before.revisions
            assert all(s.marker.state == CLOSED for s in report.servers), report.as_lines()

    def hours(self) -> Iterator[tuple[Hour, HourReport]]:
        """Audit every hour of which a server has told, as ``estat audit --hour`` does."""
        bucket: Any = self.crew.bucket
        for part in sorted({"/".join(key.split("/")[1:3]) for key in bucket.list("raw_closed/")}):
            with mock.patch.object(time, "time", return_value=self.crew.kernel.now):
                target = Target("bucket", "raw", f"{part}/")
                report = read_hour(target, Reader(bucket, 0), "UTC")
            revisions = Counter({s.marker.server: s.marker.revision for s in report.servers})
            stored = [stream for server in report.servers for stream in server.stored.items()]
            spans = {(name, n) for name, found in stored for a, z in found for n in range(a, z + 1)}
            yield Hour(part, revisions, spans), report

    def teardown(self) -> None:
        try:
            # a stop leaves the record of a stream behind where its worker takes the store for down
            for _ in range(2):
                self.settle()
                for server in list(self.crew.servers):
                    # in fact once a second: a stop that begins without a lease closes no hour
                    self.crew.do(server, "watch", FINE)
                    self.crew.stop(server)
                    assert server.exit_code is None, server.terms
                    beyond = server.terms.accepted - server.accepted
                    assert 0 <= beyond <= server.unanswered
                assert not self.crew.servers
            self.check_end()
            self.check_hours()
            assert self.strange_left() or not self.directories()
        finally:
            self.crew.__exit__()
            logging.getLogger("estat").removeHandler(self.surprises)
            shutil.rmtree(self.root)

    def settle(self) -> None:
        """Let everything work again, until all is stored."""
        crew = self.crew
        if os.path.exists(self.away):
            self.bring_volume_back()
        self.reconnect()
        crew.kernel.wrong_by = 0
        if not any(not server.stopping and not server.arbiter.dead for server in crew.servers):
            crew.start(crew.hosts[0])
        for number in range(ROUNDS):
            self.pass_time(11 + 3 * number)  # until what is tried rarely has been tried
            for server in list(crew.servers):
                for process in server.processes:
                    crew.kernel.finish(process)
                crew.work(server)  # the lease, too, before a stop
            if self.quiet():
                break
        left = sorted(str(path) for path in Path(self.dlq_dir).rglob("*"))
        assert self.quiet(), f"{[server.terms for server in crew.servers]} {left}"
        self.check_end()

    def quiet(self) -> bool:
        terms = [server.terms for server in self.crew.servers]
        return (
            not any(number >= 0 for _, number in self.on_disk())
            and not any(term.pending or term.in_dlq for term in terms)
            and all(s.worker and s.worker.serves for s in self.crew.servers)
            and sum(server.not_ours for server in self.crew.servers) >= 3 * len(self.foreign)
            and self.strange_left() >= len(self.directories()) - len(self.crew.servers)
            and not self.waiting()
        )

    def waiting(self) -> list[Path]:
        """Return what no server has of hours and journals, and the files of the DLQ."""
        servers = Path(self.dlq_dir, "servers")
        owned = [(path, path.parents[2]) for path in servers.glob("*/hours/*/*")]
        owned += [(path, path) for path in servers.glob("*/journal/[0-9]*")]
        left = [path for path, place in owned if not self.crew.owner_of(str(place / LOCK))]
        in_dlq = (path for area in ("pending", "expired") for path in servers.glob(f"*/{area}/*/*"))
        return left + [path for path in in_dlq if path.name not in self.foreign]

    def check_end(self) -> None:
        stored = {number for _, number in self.in_store()}
        assert self.crew.accepted <= stored
        self.every_accepted_event_is_somewhere_and_the_accounting_closes()
        names = Counter(path.name for path in Path(self.root).rglob("*") if path.is_file())
        for name in (*self.foreign, *self.unknown):
            assert names[name] == 1, f"{name} is to be left alone"

    # --- what there is

    def server(self, seat: int) -> Server:
        return self.crew.servers[seat % len(self.crew.servers)]

    def on(self, host: Host) -> list[Server]:
        return [server for server in self.crew.servers if server.host is host]

    def numbers(self, count: int) -> range:
        self.events += count
        return range(self.events - count, self.events)

    def directories(self) -> list[Path]:
        return sorted(Path(self.dlq_dir).glob("servers/[0-9]*"))

    def choose(self, choice: int) -> Path:
        found = self.directories()
        return found[choice % len(found)]

    def strange_left(self) -> int:
        return len(self.foreign) + len(self.unknown)

    def batch(self, stream: str, first: int, numbers: range, bucket: str = "") -> Batch:
        now = self.crew.kernel.now
        lines = [
            b'{"id":"%b-%d","body":{"n":%d}}\n' % (stream.encode(), first + at, number)
            for at, number in enumerate(numbers)
        ]
        payload = gzip.gzip(b"".join(lines))
        key = ids.object_key("raw", "dt=2100-01-01/hr=00", now, "i", stream, first)
        count = len(numbers)
        return Batch(
            bucket=bucket or f"file:{self.root}/store",
            key=key,
            name=ids.stem(key),
            stream=stream,
            first=first,
            last=first + count - 1,
            events=count,
            payload=payload,
            crc32=crc32_of(payload),
            opened=now,
        )

    def put_dlq_file(self, directory: Path, batch: Batch) -> Path:
        slot = directory / "pending" / slot_of(self.crew.kernel.now)
        slot.mkdir(parents=True, exist_ok=True)
        path = slot / dlq_file.file_name(batch)
        path.write_bytes(b"".join(dlq_file.pack(batch, "put_failed", "")))
        return path

    def merge_flat(self, root: str) -> None:
        """Put files of the earliest layout into DLQ_DIR, beside those that are there."""
        for area in layouts.AREAS:
            for path in Path(root, area).glob("*/*"):
                target = Path(self.dlq_dir, area, path.parent.name, path.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)

    def age(self, seconds: float) -> None:
        """Let all files be older by the volume's clock."""
        for place, directories, names in os.walk(self.root):
            for name in (*directories, *names):
                path = os.path.join(place, name)
                then = os.lstat(path).st_mtime - seconds
                os.utime(path, (then, then))

    @contextlib.contextmanager
    def answering(self, answer: str) -> Iterator[None]:
        self.crew.bucket.next = answer
        yield
        self.crew.bucket.next = "works"

    def in_store(self) -> Found:
        objects = self.crew.bucket.objects.items()
        return [
            found
            for key, (body, _) in objects
            if key.startswith("raw/")
            for found in events_in(gzip.gunzip(body))
        ]

    def on_disk(self) -> Found:
        found: Found = []
        for path in files_below(self.root):
            if path.endswith(".journal"):
                found += events_in_journal(read(path))
            elif path.endswith(".jsonl.gz") and "/quarantine/" not in path:
                with contextlib.suppress(OSError):  # garbage
                    found += events_in(read_gzip(path))
        return found


seed = os.environ.get("SEED")
ServerMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("HISTORIES", examples(100))),
    stateful_step_count=40,
    deadline=None,
    derandomize=seed is None,
    database=None,
    phases=[Phase.generate] if os.environ.get("NOSHRINK") else list(Phase),
    suppress_health_check=list(HealthCheck),
)
TestServerMachine = ServerMachine.TestCase
if seed:
    TestServerMachine = hypothesis.seed(int(seed))(TestServerMachine)
