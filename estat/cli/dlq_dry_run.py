"""``estat dlq replay --dry-run``: tells what a replay would send where.

One HEAD for each file, and nothing else: no lock is taken, nothing is written.
"""

from collections import Counter
from collections.abc import Iterable

from estat.cli.dlq_files import content, counted, place, printable, relative
from estat.disk import dlq_file
from estat.disk.dlq import QUARANTINE, DeadLetterQueue, Entry
from estat.errors import DiskError, StoreError, Unreadable
from estat.pipeline import found_object
from estat.stores import Stores

TO_BE_STORED, ALREADY, COMPARED = "to be stored", "already stored", "to be compared"
_CAN_NOT = "can't be replayed"


def tell(dlq: DeadLetterQueue, stores: Stores, entries: Iterable[Entry]) -> int:
    """Print a line for each file, then the sums; return 1 if one can't be replayed."""
    file_count: Counter[str] = Counter()
    events: Counter[str] = Counter()
    for entry in entries:
        try:
            data = content(entry)
            if data is None:
                continue  # stored or moved meanwhile
            verdict, target = _look(stores, entry, data)
        except (Unreadable, DiskError, StoreError) as exc:
            verdict, target = _CAN_NOT, printable(str(exc))
        file_count[verdict] += 1
        events[verdict] += entry.events
        print(f"{verdict}: {relative(dlq, entry)} ({counted(1, entry.events)}): {target}")
    for verdict in (TO_BE_STORED, ALREADY, COMPARED, _CAN_NOT):
        if file_count[verdict] or verdict == TO_BE_STORED:
            print(f"{verdict}: {counted(file_count[verdict], events[verdict])}")
    if file_count[COMPARED]:
        print(
            f'"{COMPARED}": another object has the key; the ids that it lacks go up beside it, '
            "and one that was cut off is replaced"
        )
    print("dry run: nothing was sent or deleted")
    return 1 if file_count[_CAN_NOT] else 0


def _look(stores: Stores, entry: Entry, data: bytes) -> tuple[str, str]:
    """Return what a replay would find. Raises StoreError and Unreadable."""
    if entry.area == QUARANTINE:
        raise Unreadable("it lies in quarantine")
    batch = dlq_file.read(entry.name, data)
    target = place(batch.bucket, batch.key)
    # boto's own timeouts are bound enough for a question
    there = stores.get(batch.bucket).head(batch.key)
    if there is None:
        return TO_BE_STORED, target
    return (ALREADY if found_object.covers(there, batch) else COMPARED), target
