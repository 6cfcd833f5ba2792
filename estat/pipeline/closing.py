"""Closes hours: says in the bucket what a server took in an hour, once nothing of it is left here.

The rule. A server has an hour *open* from its first batch in it, and says so in the bucket at
once. It *closes* the hour when the clock is in another one, or the server ends, and nothing of the
hour is left here: no worker has a batch of it in memory, no journal and no file of the DLQ is of
it. They are looked at in this order, in which batches move, so that a batch that moves is found.
Hours that a dead server had open came here with its directory, and are closed in its name. Each
batch that is stored, however late, is noted in a file of its hour (``disk.hour_files``) before its
journal or DLQ file is removed. While there is such a file, the hour is open here, even if it was
closed before. So an hour that grows after it was closed gets a marker with a higher revision.

The bucket can't know yet of a server that took its first events of an hour while the store was
away or while the server stood still, or within the last second or two. The server says so later,
with a marker of its own. If its disk is lost before, nobody does. With DURABILITY=memory the events
of a killed worker are lost, and with them what it had not noted.

Nothing here touches an event, the breaker or admission. A store that refuses markers costs a
warning and is asked again later; the files of the oldest hours go beyond ``_MOST_HOURS``.
"""

import contextlib
import logging
import os
import time

import gevent

from estat.accounting import metrics
from estat.accounting.shared_memory import SharedPage
from estat.config.settings import Settings
from estat.disk import hour_files
from estat.disk.hour_files import HourFile
from estat.disk.leader import Leader
from estat.errors import DiskError, NotOurs, StoreError, StoreUnavailable
from estat.events import closed_hour, ids
from estat.events.closed_hour import CLOSED, OPEN, STOPPED, Marker, Note
from estat.pipeline.admission import Accounts, Disk
from estat.pipeline.delivery import Delivery
from estat.pipeline.leader_loop import LeaderLoop

log = logging.getLogger(__name__)

#: Looks at the DLQ take at most so small a part of a processor's time.
_SHARE = 50

#: How long a store is left alone that is away, and one that refuses.
_AWAY_SECONDS, _REFUSED_SECONDS = 5.0, 600.0

#: Six weeks of hours for which the store takes no marker.
_MOST_HOURS = 1000

#: How long the end of the server waits for markers.
_LAST_SECONDS = 2.0
_OTHERS_SECONDS = 0.05


class Closing(LeaderLoop):
    """The loop that opens and closes hours in the bucket."""

    _error_event = "closing_failed_unexpectedly"

    def __init__(
        self,
        disk: Disk,
        leader: Leader,
        delivery: Delivery,
        accounts: Accounts,
        settings: Settings,
        page: SharedPage,
    ) -> None:
        super().__init__(leader, accounts.admission)
        self._disk = disk
        self._own = os.path.basename(disk.dlq.root)
        self._delivery = delivery
        self._counts, self._hours = accounts.counts, accounts.hours
        self._settings = settings
        self._page = page
        self._told: set[str] = set()  # files of the hours that are open in the bucket
        self._refused: dict[str, float] = {}  # until when a file is left alone
        self._look_at = 0.0  # when the DLQ may be looked at again

    def turn(self) -> float:
        """Open and close what is due."""
        return self._settle(ending=False)

    def finish(self, deadline: float, *, last: bool) -> None:
        """Write this worker's notes; the last worker of a server that ends closes all hours.

        Hours that can't be closed are marked ``stopped``: the rest is on this server's disk.
        """
        self._hours.write()
        until = min(deadline, time.monotonic() + _LAST_SECONDS)
        self._delivery.end_attempts(until)
        for notes in hour_files.by_hour(self._hours.notes).values():
            # this server has lost its directory: whoever has it closes the hour
            with contextlib.suppress(StoreError, NotOurs):
                self._tell(self._own, notes, "")
        self._counts.set(metrics.BEGINS_BATCHES, 0)
        while last and time.monotonic() < until and not self._others_go_on():
            try:
                if self._leader.lead():
                    self._settle(ending=True)
                    return
            except DiskError as exc:
                log.debug("hours_left_open", extra={"error": str(exc)})  # the lease warns
                return
            gevent.sleep(_OTHERS_SECONDS)

    def _others_go_on(self) -> bool:
        """Tell whether another worker may still begin batches; it will end later, and close."""
        return any(row.cells[metrics.BEGINS_BATCHES] for row in self._page.used_rows())

    def _settle(self, *, ending: bool) -> float:
        """Bring what the bucket tells up to date; return the seconds until the next time."""
        try:
            found = self._disk.run(hour_files.found_in, self._disk.dlq.root)
            paths = {file.path for file in found}
            self._told &= paths
            self._refused = {path: at for path, at in self._refused.items() if path in paths}
            if not found or self._delivery.breaker.open:
                return self._pause_seconds
            for file in found[:-_MOST_HOURS]:
                self._seldom.warning("hour_forgotten", "too many", hour=file.name)
                self._disk.run(hour_files.remove, file, self._disk.run(hour_files.read, file)[1])
            return self._settle_all(found[-_MOST_HOURS:], ending)
        except DiskError as exc:
            self._seldom.warning("hour_not_closed", "disk", error=str(exc))
            return self._pause_seconds

    def _settle_all(self, found: list[HourFile], ending: bool) -> float:
        zone = self._settings.partition_tz
        now = hour_files.name_of_partition(ids.partition(time.time(), zone))
        over = {file.name for file in found if ending or not file.name.startswith(now)}
        held = self._held(over)
        for file in found:
            if time.monotonic() < self._refused.get(file.path, 0.0) and not ending:
                continue
            try:
                if file.name in over - held:
                    self._close(file)
                elif ending or file.path not in self._told:
                    notes, _ = self._disk.run(hour_files.read, file)
                    self._tell(file.server, notes, STOPPED if ending else OPEN)
                    self._told.add(file.path)
            except StoreUnavailable as exc:
                self._seldom.warning("hour_not_closed", "away", error=str(exc))
                return _AWAY_SECONDS
            except (StoreError, NotOurs) as exc:
                # of another bucket, perhaps: it hides none of the others
                self._seldom.warning("hour_not_closed", "refused", error=str(exc))
                self._refused[file.path] = time.monotonic() + _REFUSED_SECONDS
        return self._pause_seconds

    def _held(self, over: set[str]) -> set[str]:
        """Return the hours of which something is left here, by their files' names."""
        rows = self._page.used_rows()
        in_memory = [row.cells[metrics.OLDEST_HOUR] for row in rows]
        oldest = min(filter(None, in_memory), default=0)
        held = {name for name in over if oldest and hour_files.number_of(name) >= oldest}
        names = over - held
        if not names or time.monotonic() < self._look_at:
            return over
        found, took = self._disk.run(self._on_disk, names)
        in_dlq = self._admission.in_dlq().files
        self._look_at = time.monotonic() + _SHARE * took if in_dlq else 0.0
        return held | found

    def _on_disk(self, names: set[str]) -> tuple[set[str], float]:
        """Return the hours of which a journal or the DLQ has something, read in this order.

        Also return how many seconds of a processor that took: on a busy machine it may wait long.
        """
        started = time.thread_time()
        dlq = self._disk.dlq
        held = names & {*hour_files.of_journals(dlq.root, names)}
        if names - held and self._admission.in_dlq().files:
            held |= hour_files.of_files(dlq, names, self._settings.partition_tz)
        return held, time.thread_time() - started

    def _close(self, file: HourFile) -> None:
        """Write the marker of an hour of which nothing is left; then its file goes."""
        notes, size_bytes = self._disk.run(hour_files.read, file)
        self._tell(file.server, notes, CLOSED)
        if self._disk.run(hour_files.remove, file, size_bytes):
            log.info("hour_closed", extra={"hour": file.name, "server": file.server})

    def _tell(self, server: str, notes: list[Note], state: str) -> None:
        """Write what a server says of the hour of its notes. Raises StoreError, and NotOurs."""
        if not notes:
            return  # of a file that can't be read nothing is known
        prefix, partition, instance, _ = ids.read_key(notes[0].key)
        blank = Marker(server, partition, self._settings.partition_tz.key, instance)

        def change(there: bytes | None) -> bytes | None:
            said = blank
            with contextlib.suppress(ValueError):  # what was cut off says nothing
                said = closed_hour.unpack(there) if there else blank
            new = said.then(notes, state, self._own, time.time())
            return new.pack() if new else None

        self._delivery.rewrite(notes[0].bucket, ids.closed_key(prefix, partition, server), change)
