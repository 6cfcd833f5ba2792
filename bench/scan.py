"""What one partial scan of the DLQ costs, by the number of files and of slots.

The replayer scans once a pass, so this is what an outage costs each second
however much lies there. The files are empty: a scan reads names alone.
"""

import itertools
import os
import time
from argparse import Namespace
from typing import NamedTuple

from bench import BenchError, report
from estat.disk import dlq_file
from estat.disk.dlq import PENDING, SCAN_LIMIT, DeadLetterQueue
from estat.disk.slots import slot_of
from estat.events import ids

#: Scans of each case, in turns.
_SCANS = 50

_SLOT_SECONDS = 3600
_EVENTS = 5000


class Case(NamedTuple):
    """How many files there are, and in how many slots."""

    files: int
    slots: int


class Cost(NamedTuple):
    """Of one scan."""

    cpu_ms: float
    wall_ms: float
    found: int


_CASES = (Case(10, 1), Case(10, 10), Case(100_000, 1), Case(100_000, 48))


def run(directory: str, _: Namespace) -> None:
    """Scan a DLQ for what is due, by the number of files in it."""
    queues = {}
    for case in _CASES:
        report.progress(f"making {case.files:,} files in {case.slots} slots")
        queues[case] = _filled(os.path.join(directory, f"{case.files}-{case.slots}"), case)
    costs: dict[Case, list[Cost]] = {case: [] for case in _CASES}
    for _scan_number in range(_SCANS):
        for case, queue in queues.items():
            costs[case].append(_scan(queue))
    report.describe(
        directory,
        f"Scan: `DeadLetterQueue.scan` of pending, at most {SCAN_LIMIT:,} names; median "
        f"(min-max) of {_SCANS} alternating scans; directories are in the page cache",
    )
    rows = [_row(case, found) for case, found in costs.items()]
    report.table("files | slots | files returned | CPU ms | wall ms", rows, texts=0)
    print("- Target: none; what counts is that it does not grow with the number of files")


def _row(case: Case, costs: list[Cost]) -> list[str]:
    return [
        f"{case.files:,}",
        str(case.slots),
        f"{costs[0].found:,}",
        report.spread((cost.cpu_ms for cost in costs), 2),
        report.spread((cost.wall_ms for cost in costs), 2),
    ]


def _scan(queue: DeadLetterQueue) -> Cost:
    now = time.time()
    wall, cpu = time.perf_counter(), time.process_time()
    found = queue.scan(PENDING, now)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Cost(cpu * 1000, wall * 1000, len(found.due))


def _filled(root: str, case: Case) -> DeadLetterQueue:
    """Make a DLQ whose newest slot is the current hour."""
    queue = DeadLetterQueue(root)
    queue.create()
    now = time.time()
    stream = ids.new_stream()
    opened = [now - _SLOT_SECONDS * n for n in reversed(range(case.slots))]
    directories = [os.path.join(root, PENDING, slot_of(at)) for at in opened]
    for directory in directories:
        os.mkdir(directory)
    turns = itertools.cycle(zip(directories, opened, strict=True))
    for seq, (directory, at) in zip(range(case.files), turns, strict=False):
        name = _name(at, stream, seq)
        os.close(os.open(os.path.join(directory, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    if dlq_file.parse_name(name).events != _EVENTS:
        raise BenchError(f"{name} is no name of a DLQ file")
    return queue


def _name(opened: float, stream: str, seq: int) -> str:
    key = ids.object_key("", "", opened, "bench", stream, seq)
    stem = os.path.basename(key).removesuffix(ids.SUFFIX)
    return f"{stem}.{_EVENTS}{ids.SUFFIX}"
