"""The audit beside a server: whatever moves between any two of its steps, it finds no fault.

A stream is written as the server writes one, with a step here and there wherever the
audit is about to read something. Batches are stored in any order, so most ways of
reading would meet later events and not the ones before them.
"""

import json
import os
import tempfile
import time
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from random import Random
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from estat.audit.reader import Reader
from estat.cli import main
from estat.disk import directory_lock, dlq_file, files, whole_file
from estat.disk.dlq import PENDING, DeadLetterQueue
from estat.events import ids
from tests.support.examples import examples
from tests.unit.batches import STREAM, batch
from tests.unit.journals import JournalFile


class World:
    """A bucket, a DLQ directory, and one stream that goes through them."""

    def __init__(self, root: str, random: Random) -> None:
        self.bucket = f"{root}/bucket"
        self.dlq = DeadLetterQueue(f"{root}/dlq")
        self.dlq.create()
        self.random = random
        self.given = 0  # the last id
        self.ended = False
        self._open: JournalFile | None = None
        self._batches = 0
        self._now = time.time()
        self._kept: dict[int, tuple[range, str]] = {}  # journals of whole batches
        self._spilled: dict[int, range] = {}
        self._to_be_removed: list[str] = []
        os.makedirs(f"{self.bucket}/raw")
        os.makedirs(f"{self.bucket}/raw_streams")

    def step(self) -> None:
        """Do one thing that the server may do at any moment."""
        steps = [
            self._append,
            self._append,
            self._close,
            self._store,
            self._spill,
            self._replay,
            self._defer,
            self._remove,
            self._remove,
        ]
        self.random.choice(steps)()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def end(self) -> None:
        """Stop the server: what is left goes to the DLQ, then the record is written."""
        self._close()
        for seq in list(self._kept):
            self._spill_one(seq)
        record = {"stream": STREAM, "events": self.given, "last_id": f"{STREAM}-{self.given}"}
        self.ended = True
        self._write(ids.record_key("raw", STREAM), json.dumps(record).encode())

    def _append(self) -> None:
        if self.ended:
            return
        if self._open is None:
            self._batches += 1
            self._open = JournalFile(
                seq=self._batches, first=self.given + 1, bucket=f"file:{self.bucket}"
            )
        numbers = range(self.given + 1, self.given + 1 + self.random.randint(1, 4))
        self._open.group(numbers).write(self.dlq.root, lock=False)
        self.given = numbers[-1]

    def _close(self) -> None:
        if self._open:
            numbers = range(self._open.first, self.given + 1)
            path = self._open.write(self.dlq.root, lock=False)
            self._kept[self._open.seq] = (numbers, path)
            self._open = None

    def _store(self) -> None:
        if self._kept:
            seq = self.random.choice(list(self._kept))
            numbers, path = self._kept.pop(seq)
            self._put(seq, numbers)
            self._to_be_removed.append(path)

    def _spill(self) -> None:
        if self._kept:
            self._spill_one(self.random.choice(list(self._kept)))

    def _spill_one(self, seq: int) -> None:
        numbers, path = self._kept.pop(seq)
        made = replace(batch(numbers, seq=seq), bucket=f"file:{self.bucket}")
        self.dlq.write(made, dlq_file.pack(made, "put_failed", ""))
        self._spilled[seq] = numbers
        self._to_be_removed.append(path)

    def _replay(self) -> None:
        if self._spilled:
            seq = self.random.choice(list(self._spilled))
            numbers = self._spilled.pop(seq)
            self._put(seq, numbers)
            self._to_be_removed.append(self._file(seq, numbers))

    def _defer(self) -> None:
        if self._spilled:
            seq = self.random.choice(list(self._spilled))
            path = self._file(seq, self._spilled[seq])
            (entry,) = [entry for entry in _every(self.dlq) if entry.path == path]
            claim = self.dlq.claim(entry)
            assert claim
            with claim:
                is_pending = entry.area == PENDING  # what is expired does not expire again
                move = self.random.choice([self.dlq.defer, self.dlq.expire][: 1 + is_pending])
                self._now += 3600 * self.random.randint(0, 2)  # slots only ever get later
                move(claim, self._now)

    def _remove(self) -> None:
        if self._to_be_removed:
            os.unlink(self._to_be_removed.pop(self.random.randrange(len(self._to_be_removed))))

    def _file(self, seq: int, numbers: range) -> str:
        name = dlq_file.file_name(batch(numbers, seq=seq))
        return next(entry.path for entry in _every(self.dlq) if entry.name == name)

    def _put(self, seq: int, numbers: range) -> None:
        made = batch(numbers, seq=seq)
        self._write(made.key, made.payload)

    def _write(self, key: str, body: bytes) -> None:
        whole_file.write(f"{self.bucket}/{key}", [body], files.BY_UMASK)


_every = DeadLetterQueue.every


def audit(world: World, *arguments: str) -> tuple[int, dict]:
    out = StringIO()
    with redirect_stdout(out):
        code = main.main(["audit", world.bucket, "--dlq", world.dlq.root, "--json", *arguments])
    return code, json.loads(out.getvalue())


def stepping(world: World, function, most: int = 3):
    """Return ``function`` with steps of the world before it."""

    def stepped(*args, **kwargs):
        world.run(world.random.randint(0, most))
        return function(*args, **kwargs)

    return stepped


def stepping_every(world: World):
    """Return ``DeadLetterQueue.every`` with steps of the world before each file."""

    def every(dlq):
        for entry in _every(dlq):
            world.run(world.random.randint(0, 2))
            yield entry

    return every


@contextmanager
def moving(random, ends):
    """Yield a world that goes on before each step of the audit."""
    with tempfile.TemporaryDirectory() as root, patch("os.fsync", lambda _: None):
        world = World(root, random)
        world.run(random.randint(5, 40))
        world._append()
        keys = Reader.keys

        def keys_at_the_end(*args, **more):
            if ends and not world.ended and world.random.random() < 0.3:
                world.end()
            world.run(world.random.randint(0, 3))
            return keys(*args, **more)

        with (
            patch.object(directory_lock, "streams", stepping(world, directory_lock.streams)),
            patch.object(directory_lock, "journals", stepping(world, directory_lock.journals)),
            patch.object(files, "read_whole", stepping(world, files.read_whole)),
            patch.object(DeadLetterQueue, "every", stepping_every(world)),
            patch.object(Reader, "keys", keys_at_the_end),
            patch.object(Reader, "_look", stepping(world, Reader._look, most=1)),
        ):
            yield world


@given(random=st.randoms(use_true_random=False), ends=st.booleans(), deep=st.booleans())
@settings(max_examples=examples(150))
def test_whatever_moves_while_the_audit_reads_there_is_no_gap_and_no_repeat(random, ends, deep):
    with moving(random, ends) as world:
        before = world.given
        code, report = audit(world, *["--deep"][:deep])
    (stream,) = report["streams"]
    assert not {"gaps", "repeats", "past record"} & set(stream["states"]), stream
    assert stream["events"] + report["waiting_events"] >= before
    assert report["unreadable"] == []
    assert code in (0, 3)


@given(random=st.randoms(use_true_random=False), ends=st.booleans(), deep=st.booleans())
@settings(max_examples=examples(50))
def test_whatever_moves_while_a_receipt_is_looked_up_it_is_found(random, ends, deep):
    with moving(random, ends) as world:
        asked = [random.randint(1, world.given) for _ in range(3)]
        receipts = [f"--receipt={STREAM}-{min(asked)}..{number}" for number in asked]
        code, report = audit(world, *receipts, *["--deep"][:deep])
    for one in report["receipts"]:
        ids_found = [n for f in one["found"] for n in range(f["first"], f["last"] + 1)]
        assert set(ids_found) == set(range(one["first"], one["last"] + 1))
    assert report["unreadable"] == []
    assert code in (0, 3)
