"""Which hours one worker has batches of, and what became of these (see ``closing``).

No event waits for this: notes are kept in memory, and written once a second. If a batch came from
disk, its note is written at once, before its file is removed. If the disk refuses a note, it is
written later. Until then this worker counts as one that has a batch of the hour.
"""

import contextlib
import logging
from collections import Counter

from estat.accounting import metrics
from estat.accounting.metrics import Metrics
from estat.config.settings import Settings
from estat.disk import hour_files
from estat.disk.dlq import Entry
from estat.disk.journal_file import Header
from estat.errors import DiskError, NotOurs, Unreadable
from estat.events import ids
from estat.events.batch import Batch
from estat.events.closed_hour import DROPPED, OPENED, STORED, Note
from estat.log import Seldom
from estat.threads import Offload

log = logging.getLogger(__name__)


class Hours:
    """What one worker has of each hour."""

    def __init__(self, settings: Settings, counts: Metrics, threads: Offload | None = None) -> None:
        #: What is not on disk yet.
        self.notes: list[Note] = []
        self._root = settings.dlq_dir
        self._fallback_bucket = settings.fallback_bucket
        self._journaled = settings.durability.journaled
        self._counts = counts
        self._threads = threads or Offload(1)
        self._held: Counter[int] = Counter()  # batches and notes, by the hour's number
        self._last = ""  # name of the hour in which the last batch was opened
        self._seldom = Seldom(log)

    def opened(self, header: Header) -> None:
        """Take note of a new batch, before it has events."""
        self._hold(header.key, 1)
        name = hour_files.name_of(header.bucket, header.key)
        if name != self._last:
            self._last = name
            self._add(Note(header.bucket, header.key, header.first, header.first - 1, OPENED))

    def left(self, key: str) -> None:
        """Take note that a batch is not in memory any more."""
        self._hold(key, -1)

    def stored(self, batch: Batch, *, at_once: bool = False) -> None:
        """Take note of a batch that is stored; ``at_once``: write it down before this returns.

        With a journal that is also done for the first one of an hour, which nothing tells of yet.
        """
        if batch.bucket != self._fallback_bucket:
            self.note(batch, STORED)
        is_first = self._journaled and any(note.fate == OPENED for note in self.notes)
        if at_once or is_first:
            self.write()

    def note(self, batch: Batch, fate: str) -> None:
        """Take note of what became of a batch."""
        self._add(Note(batch.bucket, batch.key, batch.first, batch.last, fate))

    def dropped(self, entry: Entry) -> None:
        """Take note that a file of the DLQ is dropped, as far as it can be read. Blocks shortly."""
        with contextlib.suppress(Unreadable, DiskError):
            about = entry.read_header()
            self._add(Note(about["bucket"], about["key"], about["first"], about["last"], DROPPED))

    def write(self) -> None:
        """Write the notes to disk; what it does not take is tried again."""
        notes, self.notes = self.notes, []
        if not notes:
            return
        try:
            self._threads.run(hour_files.append, self._root, notes)
        except DiskError as exc:
            self.notes = notes + self.notes
            self._seldom.warning("hour_not_noted", "disk", error=str(exc))
            return
        for note in notes:
            self._hold(note.key, -1)

    def _add(self, note: Note) -> None:
        if hour_files.name_of(note.bucket, note.key):
            self.notes.append(note)
            self._hold(note.key, 1)

    def _hold(self, key: str, change: int) -> None:
        with contextlib.suppress(NotOurs):  # a stream's record has no hour
            self._held[ids.read_key(key).hour] += change
            self._held = +self._held
            self._counts.set(metrics.OLDEST_HOUR, min(self._held, default=0))
