"""The dead letter queue on disk: batches that could not be stored yet.

    pending/<slot>/<file>      to be retried; a slot is an hour (see ``slots``)
    expired/<slot>/<file>      older than DLQ_MAX_AGE: retried last and rarely, never deleted
    quarantine/<file>          can't be read; goes to DLQ_PREFIX for a person to look at

Slots make a partial scan cheap and fair. A scan reads a limited number of names, from the
oldest slot on, however many there are. A file that fails for a reason of its own moves to a
later slot, so that it does not hide the others.

Whoever sends, moves or deletes a file holds a lock on it (flock), so two
processes never work on one file; a crash frees the lock. All calls block: use
them through ``Offload``. They raise DiskError.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Self

from estat.disk import dlq_file, files, locks, whole_file
from estat.disk.slots import EVER, SLOT_SECONDS, is_due, later_slot, slot_of
from estat.errors import DiskError, NotOurs, Unreadable
from estat.events.batch import Batch
from estat.events.gzip import MAX_BYTES, TOO_LARGE, gzip

PENDING, EXPIRED, QUARANTINE = "pending", "expired", "quarantine"

#: Names that one scan reads at most.
SCAN_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a scan saw it."""

    slot: str
    name: str
    path: str
    events: int
    opened: int | None

    @property
    def area(self) -> str:
        """PENDING, EXPIRED or QUARANTINE."""
        directory = os.path.dirname(self.path)
        return os.path.basename(os.path.dirname(directory) if self.slot else directory)

    @property
    def age_key(self) -> tuple[int, str]:
        """A key to sort by: the oldest batch comes first."""
        return (self.opened or 0, self.name)

    def read_header(self) -> dict[str, Any]:
        """Return the facts of the file's header alone: where its batch goes, and its ids.

        Raises DiskError, Unreadable, or NotOurs.
        """
        with files.disk_errors("read", self.path):
            head = files.read_beginning(self.path, dlq_file.HEADER_READ_BYTES)
        about = dlq_file.read_header(head)
        dlq_file.check_header(self.name, about)
        return about


class Scan(NamedTuple):
    """What a scan found: files that may be retried, oldest first, and the oldest batch's time."""

    due: list[Entry]
    oldest: int | None


class Totals(NamedTuple):
    """The size of the whole DLQ."""

    files: int
    events: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The exclusive right to a file, while the block lasts."""

    entry: Entry
    size_bytes: int
    _descriptor: int
    _access: files.Access

    def read(self) -> Batch:
        """Return the file's batch. Raises Unreadable, or NotOurs."""
        return dlq_file.read(self.entry.name, self.content())

    def content(self) -> bytes:
        """Return the file's bytes as they are. Raises NotOurs for what is no file of ours."""
        with files.disk_errors("read", self.entry.path):
            data = os.pread(self._descriptor, self.size_bytes + 1, 0)
        if len(data) > self.size_bytes:
            raise NotOurs(TOO_LARGE)
        return data

    def remove(self) -> None:
        """Delete the file."""
        with files.disk_errors("unlink", self.entry.path):
            os.unlink(self.entry.path)

    def move(self, directory: str) -> None:
        """Move the file to another directory of the DLQ."""
        with files.disk_errors("rename", self.entry.path):
            files.make_directories(directory, self._access)
            os.rename(self.entry.path, os.path.join(directory, self.entry.name))
            files.sync_directory(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class DeadLetterQueue:
    """The directory ``root``."""

    def __init__(self, root: str, may_go_to: Callable[[str], object] = lambda _: None) -> None:
        """Make the DLQ in a directory; ``may_go_to`` raises NotOurs for a bucket that none may."""
        self.root = root
        #: How what lies in it is made: never where it is gone itself.
        self.access = files.PRIVATE._replace(top=root)
        self.may_go_to = may_go_to
        #: Paths of files that are set aside, and for what reason: they stay where they are, and
        #: no scan finds them.
        self.aside: dict[str, str] = {}
        self._kept: set[str] = set()  # the same, as ``oldest`` has met them

    def create(self) -> None:
        """Make the directories; a full disk may have room for them."""
        for area in map(self._area, (PENDING, EXPIRED, QUARANTINE)):
            with files.disk_errors("create", area):
                files.make_private(area)

    def probe(self) -> None:
        """Write, sync and remove a small file."""
        path = os.path.join(self.root, ".probe")
        whole_file.write(path, [b"probe\n"], self.access)
        files.remove(path)

    def write(self, batch: Batch, parts: list[bytes], *, beside: bool = False) -> int:
        """Store a batch, packed by ``dlq_file``; return the file's size in bytes.

        ``beside`` keeps what has the name and does not hold the batch: it is counted already.
        """
        now = time.time()
        name = dlq_file.file_name(batch)
        path = self._area(PENDING, slot_of(now), name)
        if beside and os.path.lexists(path):
            path = self._area(PENDING, slot_of(now - SLOT_SECONDS), name)
        whole_file.write(path, parts, self.access)
        return sum(map(len, parts))

    def holds(self, batch: Batch) -> bool:
        """Tell whether a batch's file is there already, to be retried; it is durable then.

        What only has its name, or can't be read, does not hold it.
        """
        name = dlq_file.file_name(batch)
        with files.disk_errors("scan", self.root):
            for area in (PENDING, EXPIRED):
                for slot in self._slots(area):
                    if _is_file_of(batch, name, self._area(area, slot, name)):
                        # its writer may have died before it could do this
                        files.sync_directory(self._area(area, slot))
                        files.sync_directory(self._area(area))
                        return True
        return False

    def put_aside(self, name: str, events: int, data: bytes) -> int | None:
        """Write bytes that can't be trusted to the quarantine.

        Return the file's size in bytes; None if it is there already.
        """
        content = gzip(data)
        name = dlq_file.name_for(name, events)
        here, *elsewhere = (self._area(QUARANTINE, slot, name) for slot in self._slots(QUARANTINE))
        is_there = any(map(os.path.lexists, elsewhere))
        is_new = not is_there and whole_file.write_new(here, [content], self.access)
        return len(content) if is_new else None

    def scan(self, area: str, now: float, limit: int = SCAN_LIMIT) -> Scan:
        """Read at most ``limit`` names, from the oldest slot on; first of slots that are due.

        What is set aside is passed over.
        """
        current = slot_of(now)
        due: list[Entry] = []
        opened: list[int] = []
        with files.disk_errors("scan", self._area(area)):
            slots = self._slots(area)
            # a clock that was ahead must not hide files behind those that are put off
            for slot in sorted(slots, key=lambda slot: not is_due(slot, now)):
                found = self._visible(area, slot, limit)
                limit -= len(found)
                opened += [entry.opened for entry in found if entry.opened]
                if is_due(slot, now):
                    due += found
                    if not found and slot not in ("", current):
                        files.remove_empty(self._area(area, slot))
                if limit <= 0:
                    break
        due.sort(key=lambda entry: (entry.slot, entry.age_key))
        return Scan(due, min(opened, default=None))

    def waiting(self, limit: int = SCAN_LIMIT) -> list[Entry]:
        """Return files that are not stored yet, whatever their slots, ``limit`` of each area."""
        return [entry for area in (PENDING, EXPIRED) for entry in self.scan(area, EVER, limit).due]

    def every(self) -> Iterator[Entry]:
        """Read all files of all areas one by one, and change nothing.

        Slot by slot, inside a slot as the disk has them. The areas come in the order in
        which files move, so one that moves meanwhile may be met twice: the first path is
        gone by then.
        """
        return (entry for entry in self._walked() if not entry.name.startswith("."))

    def claim(self, entry: Entry) -> Claim | None:
        """Lock a file exclusively; None if another process has it, or it is gone."""
        with files.disk_errors("lock", entry.path):
            try:
                descriptor = locks.lock(entry.path)
            except (FileNotFoundError, BlockingIOError):
                return None
            return Claim(entry, _counted_bytes(os.fstat(descriptor)), descriptor, self.access)

    def defer(self, claim: Claim, now: float) -> None:
        """Move a file to the next slot of its area: it is not retried before that hour."""
        claim.move(self._area(claim.entry.area, later_slot(now)))

    def expire(self, claim: Claim, now: float) -> None:
        """Move a file to the expired ones."""
        claim.move(self._area(EXPIRED, slot_of(now)))

    def quarantine(self, claim: Claim) -> None:
        """Move a file that can't be read to the quarantine."""
        claim.move(self._area(QUARANTINE))

    def check(self, entry: Entry) -> None:
        """Raise NotOurs for a file that is not ours to send or drop, by its header alone.

        Raises DiskError, or Unreadable, where that can't be read.
        """
        self.may_go_to(entry.read_header()["bucket"])

    def no_more_aside(self) -> list[tuple[int, str]]:
        """Forget files that were set aside and are gone; return their events and reasons."""
        gone = {path: why for path, why in self.aside.items() if not os.path.lexists(path)}
        self.aside = {path: why for path, why in self.aside.items() if path not in gone}
        return [
            (dlq_file.parse_name(os.path.basename(path)).events, why) for path, why in gone.items()
        ]

    def oldest(self) -> Claim | None:
        """Claim the oldest file that nobody is working on, and that is ours to drop."""
        while True:
            known = len(self._kept)
            found = self.waiting(SCAN_LIMIT + known)
            ours = (e for e in found if e.opened is not None and e.path not in self._kept)
            for entry in sorted(ours, key=lambda e: e.age_key):
                with contextlib.suppress(DiskError):  # the next file will do as well
                    claim = self.claim(entry) if self._may_drop(entry) else None
                    if claim:
                        return claim
            if len(self._kept) == known:
                return None

    def _may_drop(self, entry: Entry) -> bool:
        """Tell whether a file is ours to drop; one that can't be read is. Raises DiskError."""
        try:
            self.check(entry)
        except NotOurs:
            self._kept.add(entry.path)
            return False
        except Unreadable:
            pass
        return True

    def walk(self) -> Totals:
        """Count all files, and remove those that killed writers left half-written."""
        return self._total(self._walked())

    def count(self, area: str, slot: str) -> Totals:
        """Count a slot's files as ``walk`` does; without a slot, those beside the slots."""
        return self._total(self._inside(area, slot))

    def _total(self, entries: Iterable[Entry]) -> Totals:
        """Add up files; remove half-written ones that nobody writes any more."""
        count = events = size = 0
        for entry in entries:
            with files.disk_errors("stat", entry.path), contextlib.suppress(FileNotFoundError):
                status = os.lstat(entry.path)
                if not entry.name.startswith("."):
                    is_ours = status.st_uid == os.geteuid() and status.st_nlink == 1
                    if is_ours and status.st_mode & 0o077:  # of an earlier version
                        os.chmod(entry.path, files.PRIVATE.file)
                    count += 1
                    events += entry.events
                    size += _counted_bytes(status)
                elif entry.name.endswith(files.TEMPORARY):
                    locks.remove_left(entry.path)
        return Totals(count, events, size)

    def _walked(self) -> Iterator[Entry]:
        """Read all files of all areas, hidden ones too."""
        for area in (PENDING, EXPIRED, QUARANTINE):
            for slot in self._growing(area):
                yield from self._inside(area, slot)

    def _inside(self, area: str, slot: str) -> Iterator[Entry]:
        with files.disk_errors("walk", self.root):
            for name in files.file_names(self._area(area, slot)):
                yield self._entry(area, slot, name)

    def _growing(self, area: str) -> Iterator[str]:
        """Yield the slots of an area in order, also those that are made meanwhile."""
        seen: set[str] = set()
        while newer := [slot for slot in self._slots(area) if slot not in seen]:
            yield from newer
            seen.update(newer)

    def _slots(self, area: str) -> list[str]:
        """Return the slots of an area in order; in quarantine files also lie beside them: ""."""
        with files.disk_errors("scan", self._area(area)):
            names = files.directory_names(self._area(area))
        slots = [name for name in names if not name.startswith(".")]
        return ["", *slots] if area == QUARANTINE else slots

    def _visible(self, area: str, slot: str, limit: int) -> list[Entry]:
        """Return files that are whole, at most ``limit``."""
        names = files.file_names(self._area(area, slot))
        whole = (self._entry(area, slot, name) for name in names if not name.startswith("."))
        return list(islice((entry for entry in whole if entry.path not in self.aside), limit))

    def _area(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def _entry(self, area: str, slot: str, name: str) -> Entry:
        parsed = dlq_file.parse_name(name)
        return Entry(slot, name, self._area(area, slot, name), parsed.events, parsed.opened)


def _counted_bytes(status: os.stat_result) -> int:
    """Return a file's size; one beyond all measure, which may be one hole, fills no DLQ."""
    return status.st_size if status.st_size <= MAX_BYTES else 0


def _is_file_of(batch: Batch, name: str, path: str) -> bool:
    """Tell whether a file is there that can be sent, and has a batch's events."""
    if not os.path.lexists(path):
        return False
    try:
        found = dlq_file.read(name, files.read_whole(path))
    except (DiskError, Unreadable):
        return False
    ids = (batch.stream, batch.first, batch.last)
    return (found.stream, found.first, found.last) == ids
