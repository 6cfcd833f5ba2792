"""Journal and DLQ against a model: whatever fails or dies, no event is lost or doubled."""

import os
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import ARBITER
from estat.disk import directory_lock
from estat.disk.dlq import EXPIRED, PENDING, DeadLetterQueue
from estat.disk.journal import DIRECTORY
from estat.errors import Refused
from estat.pipeline.queue import Submission
from tests.property.found import Found, events_below, events_in_journal, read
from tests.property.mortal import KINDS, SLOT, Died, Disk, Fate, Life, Outage
from tests.support.examples import examples

pytestmark = pytest.mark.interpreted

NOW = 4102444800.0  # later than any file's real time: what a dead process left half done is stale
FAR = NOW + 10**6
QUIET_LOOKS = 5  # more than the recovery waits for before it closes the books

answers = st.sampled_from(["works", "fails", "lands"])
fates = st.builds(
    Fate,
    st.sampled_from(["fine"] * 4 + list(KINDS)),
    # the first operation is often the one that matters: an open journal's append has two
    st.sampled_from([0, 0, 0, 1, 1, *range(2, 14)]),
    st.integers(1, 3),
)
#: A group that is written, then neither synced nor cut off again: it is in doubt.
doubt = st.just(Fate("broken", 1, 2))


class JournalMachine(RuleBasedStateMachine):
    """What became of each event, told by the number in its body."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="estat-")
        self.dlq_root = os.path.join(self.root, "dlq")
        self.store = Outage(os.path.join(self.root, "store"))
        self.now = NOW
        self.streams = 0
        self.events = 0
        self.accepted: set[int] = set()
        self.refused: set[int] = set()  # and certainly not kept
        self.asked: list[tuple[range, Submission]] = []  # requests without an answer yet
        self.doubtful: set[Submission] = set()
        self.accepted_before = 0  # by earlier lives of the server
        self.life: Life | None = None
        self.disk = Disk()
        clock: Any = SimpleNamespace(**vars(time))
        clock.time = clock.monotonic = lambda: self.now
        self.patches = [
            mock.patch("estat.pipeline.collector.time", clock),
            mock.patch("estat.disk.dlq.time", clock),
            mock.patch("estat.events.ids.new_stream", self.new_stream),
            self.disk.patched(),
        ]
        for patch in self.patches:
            patch.start()

    @initialize(durability=st.sampled_from(["journal", "fsync", "stored"]))
    def begin(self, durability: str) -> None:
        self.durability = durability
        DeadLetterQueue(self.dlq_root).create()
        self.start(whole=True)

    def new_stream(self) -> str:
        self.now += 1
        self.streams += 1
        return f"{int(self.now * 1000):012x}{self.streams:016x}"

    @precondition(lambda self: self.life is None)
    @rule(whole=st.booleans())
    def start(self, whole: bool) -> None:
        """Start the server again, or one worker in the place of the dead one."""
        if whole:
            self.now += 1
            self.page = metrics.page()
            self.page.earlier = frozenset(
                directory_lock.streams(os.path.join(self.dlq_root, DIRECTORY))
            )
            self.accepted_before = len(self.accepted)
            found = DeadLetterQueue(self.dlq_root).walk()
            books = Ledger(Metrics(self.page.rows[ARBITER]))
            books.adopt(found.events, found.files, found.size_bytes)
        else:
            row = self.page.rows[SLOT]
            row.heal()
            Ledger(Metrics(row)).orphan()
            metrics.forget_process(row)
        self.life = Life(self.root, self.durability, self.page, self.store)

    @precondition(lambda self: self.life and self.in_journals())
    @rule(orderly=st.sampled_from([False, False, True]), fate=fates)
    def end(self, orderly: bool, fate: Fate) -> None:
        """Die between two steps, or stop in order."""
        if orderly:
            self.do(Life.drain, fate)
            assert not self.asked
        self.disk.bury()
        self.life = None
        self.asked.clear()

    @precondition(lambda self: self.life)
    @rule(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3), fate=fates | doubt)
    def append(self, sizes: list[int], fate: Fate) -> None:
        """Requests come in, and are taken as one group or several."""
        waiting: deque[Submission] = deque()
        for size in sizes:
            numbers = range(self.events, self.events + size)
            waiting.append(Submission(b',"body":', [b'{"n":%d}' % n for n in numbers]))
            self.asked.append((numbers, waiting[-1]))
            self.events += size

        def collect(life: Life) -> None:
            while waiting:
                before = life.counts.row.cells[metrics.IN_DOUBT]
                group = list(waiting)
                life.collect(waiting)
                if life.counts.row.cells[metrics.IN_DOUBT] != before:
                    self.doubtful.update(set(group) - set(waiting))

        self.do(collect, fate)

    def hear(self) -> None:
        """Take note of the answers that have come."""
        answered = [(numbers, one) for numbers, one in self.asked if one._done]
        self.asked = [(numbers, one) for numbers, one in self.asked if not one._done]
        for numbers, submission in answered:
            try:
                submission.wait()
            except Refused:
                self.refused.update(() if submission in self.doubtful else numbers)
                continue
            self.accepted.update(numbers)
            if self.durability == "stored" and not submission.on_disk_alone:
                assert set(numbers) <= {number for _, number in self.in_store()}

    @precondition(lambda self: self.life and self.life.collecting)
    @rule(fate=fates)
    def seal(self, fate: Fate) -> None:
        self.do(Life.seal, fate)

    @precondition(lambda self: self.life and (self.life.uploading or self.life.collecting))
    @rule(answer=answers, fate=fates)
    def upload(self, answer: str, fate: Fate) -> None:
        """Upload a batch; if that fails it is spilled to the DLQ."""
        assert self.life
        if not self.life.uploading:
            self.life.seal()
        self.store.next = answer
        self.do(Life.upload, fate)

    @precondition(lambda self: self.life and self.life.broken)
    @rule(fate=fates)
    def mend(self, fate: Fate) -> None:
        self.do(Life.mend, fate)

    @precondition(lambda self: self.life and self.in_journals(self.life.streams))
    @rule(fate=fates)
    def recover(self, fate: Fate) -> None:
        self.do(Life.look, fate)

    @precondition(lambda self: self.life and self.in_dlq())
    @rule(answer=answers, fate=fates)
    def replay(self, answer: str, fate: Fate) -> None:
        self.store.next = answer
        self.do(lambda life: life.replay(FAR), fate)

    def do(self, step: Callable[[Life], None], fate: Fate) -> None:
        """Run a step of the process, which may be its last."""
        assert self.life
        self.disk.plan(fate)
        try:
            step(self.life)
        except Died:
            self.disk.bury()
            self.life = None
        self.hear()
        if self.life is None:
            self.asked.clear()  # these are never answered
        self.disk.heal()
        self.store.next = "works"

    @invariant()
    def every_accepted_event_is_somewhere_and_no_id_names_two(self) -> None:
        names: dict[str, int] = {}
        for event, number in (*self.in_store(), *self.in_dlq(), *self.in_journals()):
            assert names.setdefault(event, number) == number, f"{event} names two events"
        assert self.accepted - self.may_be_missing() <= set(names.values())

    def may_be_missing(self) -> set[int]:
        return set()

    @precondition(lambda self: self.life and self.in_dlq())
    @rule()
    def settle(self) -> None:
        """Nothing fails any more: every event is stored once, and the books close."""
        life = self.life
        assert life
        life.mend()
        life.seal()
        for _ in range(QUIET_LOOKS):
            life.mend()
            while life.uploading:
                life.upload()
            life.look()
        life.replay(FAR)
        life.compare()
        self.hear()
        assert not self.asked

        stored = self.in_store()
        for what in zip(*stored, strict=True):
            assert max(Counter(what).values()) == 1
        numbers = {number for _, number in stored}
        assert self.accepted - self.may_be_missing() <= numbers
        assert not numbers & self.refused
        assert not self.in_dlq()
        assert not self.in_journals()
        self.check_books()

    def check_books(self) -> None:
        assert self.life
        terms = ledger.terms(self.page)
        answered = len(self.accepted) - self.accepted_before
        if self.durability == "stored":  # it may die while accepted events wait for the store
            assert terms.accepted >= answered
        else:
            assert terms.accepted == answered
        assert ledger.in_dlq(self.page.used_rows()) == (0, 0, 0)
        assert sum(row.cells[metrics.JOURNAL_BYTES] for row in self.page.used_rows()) == 0
        assert (terms.lost, terms.pending, terms.dropped) == (0, 0, 0)

    def teardown(self) -> None:
        try:
            if hasattr(self, "page"):
                if self.life is None:
                    self.start(whole=False)
                self.settle()
        finally:
            self.disk.bury()
            for patch in reversed(self.patches):
                patch.stop()
            shutil.rmtree(self.root)

    def in_store(self) -> Found:
        return events_below(os.path.join(self.root, "store", "raw"))

    def in_dlq(self) -> Found:
        return [
            found
            for area in (PENDING, EXPIRED)
            for found in events_below(os.path.join(self.dlq_root, area))
        ]

    def in_journals(self, but: Collection[str] = ()) -> Found:
        """Return the events that the journals hold, but for those of some streams."""
        return [found for path in self.journals(but) for found in events_in_journal(read(path))]

    def journals(self, but: Collection[str] = ()) -> list[str]:
        root = os.path.join(self.dlq_root, DIRECTORY)
        return [
            path
            for stream in directory_lock.streams(root)
            if stream not in but
            for path in directory_lock.journals(os.path.join(root, stream))
        ]


class DamageMachine(JournalMachine):
    """Bytes of dead processes' journals go bad too: what they hit is set aside, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.hit: set[int] = set()
        self.damaged: set[str] = set()  # journals

    def may_be_missing(self) -> set[int]:
        return self.hit

    @precondition(lambda self: self.undamaged())
    @rule(choice=st.integers(0, 99), position=st.integers(0, 999), flip=st.integers(1, 255))
    def damage(self, choice: int, position: int, flip: int) -> None:
        """Flip some bits of one byte."""
        paths = self.undamaged()
        path = paths[choice % len(paths)]
        data = bytearray(read(path))
        before = set(events_in_journal(bytes(data)))
        data[position % len(data)] ^= flip
        with open(path, "r+b") as file:
            file.write(data)
        self.damaged.add(path)
        self.hit.update(number for _, number in before - set(events_in_journal(bytes(data))))

    def undamaged(self) -> list[str]:
        living = self.life.streams if self.life else set()
        return [
            path
            for path in self.journals(living)
            if path not in self.damaged and os.path.getsize(path)
        ]

    def check_books(self) -> None:
        if not self.hit:
            super().check_books()
            return
        # a bad copy of an event that is stored counts as dropped all the same
        assert self.life
        assert ledger.in_dlq(self.page.used_rows()) == (0, 0, 0)
        assert ledger.terms(self.page).pending == 0


for machine in (JournalMachine, DamageMachine):
    machine.TestCase.settings = settings(
        max_examples=examples(80),
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
TestJournalMachine = JournalMachine.TestCase
TestDamageMachine = DamageMachine.TestCase
