"""What the arbiter does for the server's own directory: it makes it, replaces it, leaves it.

A directory is lost when DLQ_DIR was moved away or mounted over for too long, or when another
server has taken it over. Nobody can look at its events then, so they are set aside: all that are
counted at that moment in one change, and those of a worker that still has the directory when that
worker has ended. If the directory comes back, it is found as any dead server's is.

The arbiter touches the disk only if there is no directory, or if a worker says that it is lost.
While it waits for a disk that hangs, it can't manage workers.
"""

import logging
from collections.abc import Collection

from estat.accounting import ledger, metrics
from estat.accounting.ledger import Ledger
from estat.accounting.metrics import Metrics
from estat.accounting.shared_memory import ARBITER, GIVEN_UP, LOST, OUTDATED, PROVEN
from estat.disk.dlq import DeadLetterQueue, Totals
from estat.disk.server_directory import ServerDirectory, now
from estat.errors import DiskError
from estat.log import Seldom
from estat.server import inherited
from estat.server.inherited import page, settings

logger = logging.getLogger(__name__)
_seldom = Seldom(logger)

#: Of each slot whose worker still has a directory that is lost: what its row had in the DLQ when
#: that was found.
_outdated: dict[int, Totals] = {}


def make() -> None:
    """Make the directory. If it was a dead server's, the events in it are adopted.

    Raises DiskError.
    """
    started = now()
    directory = inherited.make_directory()
    directory.number = int(page().directory[GIVEN_UP])
    page().directory[PROVEN] = started
    logger.info("directory_made", extra={"directory": directory.path})
    found = DeadLetterQueue(directory.path).walk()
    if found.files:
        _ledger().adopt(found.events, found.files, found.size_bytes)


def replace_lost(slots: Collection[int]) -> None:
    """Make a directory if there is none, or if the one there was is lost.

    ``slots`` are those of workers that live.
    """
    directory = inherited.directory()
    if directory:
        if not page().directory[LOST]:
            return
        page().directory[LOST] = 0
        if _is_ours(directory):
            return
        # before anything is counted: workers that have it must end, even if it comes back
        page().directory[GIVEN_UP] += 1
        _set_aside(directory, slots)
        page().directory[OUTDATED] = len(_outdated)
    try:
        make()
    except DiskError as exc:
        _seldom.warning("dlq_dir_not_usable_yet", "not made", error=str(exc))


def worker_ended(slot: int, pending: int) -> None:
    """Set aside a worker's events in a lost directory; its ``pending`` ones are orphans by now."""
    before = _outdated.pop(slot, None)
    if before:
        counted = ledger.in_dlq([page().rows[slot]])
        change = [now - then for now, then in zip(counted, before, strict=True)]
        _lose(Totals(*change), pending)
        page().directory[OUTDATED] = len(_outdated)


def set_aside_if_lost() -> bool:
    """Return whether the directory is lost; then what is in it is set aside. For the end."""
    directory = inherited.directory()
    if directory is None or _is_ours(directory):
        return False
    for row in page().used_rows():
        metrics.forget_process(row)  # what was set aside there is among the rest
    _set_aside(directory, ())
    return settings().durability.journaled


def release() -> None:
    """Leave the directory to others, if there is one."""
    directory = inherited.directory()
    try:
        if directory:
            directory.release()
    except DiskError as exc:
        logger.warning("directory_not_released", extra={"error": str(exc)})


def _is_ours(directory: ServerDirectory) -> bool:
    """Tell whether a directory is this server's, also where the disk does not say."""
    try:
        return directory.touch(0)
    except DiskError:
        return True


def _set_aside(directory: ServerDirectory, slots: Collection[int]) -> None:
    """Set aside all that is counted, in one change; note what is, for workers that live."""
    directory.close()  # workers that still live have its lock
    _outdated.update({slot: Totals(*ledger.in_dlq([page().rows[slot]])) for slot in slots})
    found = Totals(*ledger.in_dlq(page().used_rows()))
    orphans = sum(row.read()[metrics.ORPHANED] for row in page().used_rows())
    facts = {"directory": directory.path, "events": found.events + orphans, "files": found.files}
    logger.critical("directory_lost", extra=facts)
    _lose(found, orphans)


def _lose(found: Totals, orphans: int) -> None:
    # without journals, they died with their process
    on_disk = orphans if settings().durability.journaled else 0
    _ledger().lose(found.events, found.files, found.size_bytes, on_disk)


def _ledger() -> Ledger:
    return Ledger(Metrics(page().rows[ARBITER]))
