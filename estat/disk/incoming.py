"""Slots on their way from a dead server's directory into this server's own.

    pending/.<hour>.<n>    moved here; nobody else sees it before it is counted
    pending/<hour>.<n>     counted; its files are retried as all others are

One rename moves a slot, however many files it has. The numbers grow, and the accounting notes
the last one that is counted in the same change, so whoever goes on after a kill knows which
slots are counted already. A quarantine, which has no slots, is moved as one.

All calls block: use them through ``Offload``. They raise DiskError.
"""

import os
import re
import time
from typing import NamedTuple

from estat.disk import files
from estat.disk.dlq import EXPIRED, PENDING, QUARANTINE, DeadLetterQueue, Totals
from estat.disk.slots import slot_of

_AREAS = (PENDING, EXPIRED, QUARANTINE)

_HIDDEN = re.compile(r"\.(?P<slot>[^.]*)\.(?P<number>[0-9]{1,18})")
_SHOWN = re.compile(r"[^.]*\.(?P<number>[0-9]{1,18})")


class Waiting(NamedTuple):
    """A slot that nobody else sees yet; they sort in the order in which they came."""

    number: int
    area: str
    name: str


class Incoming:
    """The slots that come into one dead letter queue."""

    def __init__(self, dlq: DeadLetterQueue) -> None:
        self._dlq = dlq

    def waiting(self) -> list[Waiting]:
        """Return the slots that are not shown yet, the first that came first."""
        return sorted(
            Waiting(int(match["number"]), area, name)
            for area, name in self._names()
            if (match := _HIDDEN.fullmatch(name))
        )

    def last(self) -> int:
        """Return the largest number that is in use; 0 if none is."""
        matches = [_HIDDEN.fullmatch(name) or _SHOWN.fullmatch(name) for _, name in self._names()]
        return max((int(match["number"]) for match in matches if match), default=0)

    def _names(self) -> list[tuple[str, str]]:
        """Return area and name of each slot, shown or not."""
        with files.disk_errors("scan", self._dlq.root):
            return [
                (area, name)
                for area in _AREAS
                for name in files.directory_names(os.path.join(self._dlq.root, area))
            ]

    def move(self, area: str, path: str, number: int) -> None:
        """Move a slot of a dead server's here, under a number that was never used."""
        slot = os.path.basename(path).lstrip(".").partition(".")[0]
        if area == QUARANTINE or not slot:
            slot = slot_of(time.time())
        target = os.path.join(self._dlq.root, area, f".{slot}.{number}")
        with files.disk_errors("rename", path):
            files.make_directories(os.path.dirname(target), self._dlq.access)
            os.rename(path, target)
            files.sync_directory(os.path.dirname(target))
            files.sync_directory(os.path.dirname(path))

    def count(self, slot: Waiting) -> Totals:
        """Return what a slot holds."""
        return self._dlq.count(slot.area, slot.name)

    def show(self, slot: Waiting) -> None:
        """Give a slot that is counted the name under which all see it."""
        area = os.path.join(self._dlq.root, slot.area)
        with files.disk_errors("rename", area):
            os.rename(os.path.join(area, slot.name), os.path.join(area, slot.name[1:]))
            files.sync_directory(area)


def slots_in(root: str) -> list[tuple[str, str]]:
    """Return area and path of each slot in a dead server's directory; empty ones are removed."""
    found = []
    with files.disk_errors("scan", root):
        areas = [area for area in _AREAS if area in files.directory_names(root)]
        for area in areas:
            directory = os.path.join(root, area)
            found += [(area, os.path.join(directory, n)) for n in files.directory_names(directory)]
        if QUARANTINE in areas:
            found.append((QUARANTINE, os.path.join(root, QUARANTINE)))
        for _, path in found:
            files.remove_empty(path)
        return [(area, path) for area, path in found if os.path.isdir(path)]
