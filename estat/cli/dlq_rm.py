"""``estat dlq rm``: deletes files, for good, and only with ``--yes``.

Each file is deleted under its lock, so nobody is sending it at that moment.
"""

import argparse
import os

from estat.cli.dlq_files import (
    counted,
    printable,
    refuse_beside_server,
    relative,
    select_files,
    total_events,
)
from estat.disk import dlq_dir
from estat.disk.dlq import DeadLetterQueue
from estat.errors import DiskError


def rm(dlq: DeadLetterQueue, args: argparse.Namespace) -> int:
    """Delete the files; return 1 if one is still there, as all are without ``--yes``."""
    entries = select_files(dlq, args.files)
    if not args.yes:
        for entry in entries:
            print(f"would delete {relative(dlq, entry)} ({counted(1, entry.events)})")
        lost = counted(len(entries), total_events(entries))
        print(f"would lose {lost}; nothing was deleted: say --yes to do it")
        return 1
    dlq_dir.owner_warnings(dlq.root)  # raises DiskError if anybody may have made it
    refuse_beside_server(dlq, args.while_running)
    deleted = []
    left = 0
    for entry in entries:
        try:
            claim = dlq.claim(entry)
            if claim:
                with claim:
                    claim.remove()
                deleted.append(entry)
            elif os.path.lexists(entry.path):
                print(f"in use, not deleted: {relative(dlq, entry)}")
                left += 1
        except DiskError as exc:
            print(f"not deleted: {printable(str(exc))}")
            left += 1
    print(f"deleted {counted(len(deleted), total_events(deleted))}; not deleted: {left}")
    return 1 if left else 0
