"""Turns journals back into their batches, and tells what of them is lost.

``recover_journal`` is the rule, without I/O, used after a crash and for batches that could
neither be stored nor copied to the DLQ while the process lived. ``DeadStream`` reads what a dead
process left: there each journal also knows what those beside it tell.
"""

import json
import logging
import os
from typing import NamedTuple

from estat.config.settings import Settings
from estat.disk import directory_lock, files, journal_file
from estat.disk.journal_file import Content, Header
from estat.errors import NotOurs
from estat.events import ids
from estat.events.batch import Batch, crc32_of
from estat.events.gzip import gzip

log = logging.getLogger(__name__)


class Damage(NamedTuple):
    """A range that can't be trusted, for the quarantine; see ``BadRange``."""

    name: str
    events: int
    data: bytes

    @property
    def is_torn(self) -> bool:
        """Whether it is what an unfinished write has left, which nobody was promised."""
        return bool(self.data) and not self.events and journal_file.is_torn(self.data)


class RecoveredJournal(NamedTuple):
    """What a journal holds; ``batch`` is None if it has no event that can be trusted."""

    batch: Batch | None
    damages: list[Damage]


class DeadStream:
    """What a dead process left in the directory at ``path``: journals, to be read oldest first."""

    def __init__(self, path: str, settings: Settings) -> None:
        directory = os.path.basename(path)
        self.name = directory_lock.stream_of(directory)
        self.of_this_run = not directory_lock.is_taken_over(directory)
        self.path = path
        self._settings = settings
        self._seq, self._first = 1, 1  # of the next journal

    def read(self, path: str) -> RecoveredJournal:
        """Return everything that a journal still holds. Blocks; raises DiskError, and NotOurs.

        The batches of a stream have its events one after the other. So the journals before and
        behind one tell how many it had, whatever became of its bytes.
        """
        seq = int(os.path.basename(path).partition(".")[0])
        first = self._first if seq == self._seq else 0
        self._seq, self._first = seq + 1, 0
        data = files.read_whole(path)
        following = _first_event(os.path.join(self.path, f"{seq + 1:06d}{journal_file.SUFFIX}"))
        content = journal_file.parse(data, first, following)
        self._first = content.following
        if not data and not content.bad:
            # its process died before the first line was written, or its power failed
            log.error("journal_empty", extra={"file": path})
        return recover_journal(data, self.name, seq, self._settings, content)


def _first_event(path: str) -> int:
    """Return the number of a journal's first event; 0 if it is not there, or does not tell."""
    try:
        header = journal_file.read_header(path)
    except (OSError, NotOurs):
        return 0
    return header.first if header else 0


def recover_journal(
    data: bytes, stream: str, seq: int, settings: Settings, content: Content | None = None
) -> RecoveredJournal:
    """Return everything that a journal's bytes, or their parsed ``content``, still hold.

    ``stream`` and ``seq`` are those in its path, should its first line be lost. Raises NotOurs
    if its header is not lost, but none that this server writes.
    """
    content = content or journal_file.parse(data)
    if content.not_ours:
        content.not_ours.events = sum(group.events for group in content.groups)
        raise content.not_ours
    header = content.header or _made_up(data, content, stream, seq, settings)
    damages = [
        Damage(f"{header.name}-bad{bad.start}", bad.events, data[bad.start : bad.end])
        for bad in content.bad
    ]
    if not content.groups:
        return RecoveredJournal(None, damages)
    payload = gzip(b"".join(data[group.start : group.end] for group in content.groups))
    last = content.groups[-1]
    batch = Batch(
        bucket=header.bucket,
        key=header.key,
        name=header.name,
        stream=header.stream,
        first=content.groups[0].first,
        last=last.first + last.events - 1,
        events=sum(group.events for group in content.groups),
        payload=payload,
        crc32=crc32_of(payload),
        opened=header.opened,
    )
    return RecoveredJournal(batch, damages)


def events_in(data: bytes) -> int:
    """Return the number of events that a journal's bytes still hold."""
    return sum(group.events for group in journal_file.parse(data).groups)


def _made_up(data: bytes, content: Content, stream: str, seq: int, settings: Settings) -> Header:
    """Give a batch whose header is lost a key of its own.

    It was never sealed, so as a rule it was never uploaded under the key that is lost. The
    exception, a batch whose last append failed, gets the same key again from the same settings.
    """
    first, opened = 1, ids.started_at(stream) or 0.0
    if content.groups:
        first, start = content.groups[0].first, content.groups[0].start
        opened = _time_in(data[start : data.index(b"\n", start)], opened)
    key = ids.object_key(
        settings.raw_prefix,
        ids.partition(opened, settings.partition_tz),
        opened,
        settings.instance_id,
        stream,
        seq,
    )
    return Header(settings.raw_bucket, key, ids.stem(key), stream, first, opened)


def _time_in(line: bytes, otherwise: float) -> float:
    """Return the time in an event's line; ``otherwise`` if it has none that can be one."""
    try:
        opened = json.loads(line)["ts"]
        ids.check_time("ts", opened)
    except (ValueError, TypeError, LookupError, RecursionError, NotOurs):
        return otherwise
    return float(opened)
