"""What can't be run here: a fleet in an outage of S3, and a service that grows.

Small models of what the documents say. In an outage batches become files, and each task replays
four at a time once S3 is back. A service on target tracking looks at each minute's average of
its tasks' CPU, which can't be seen above 100 %.
"""

import math
from collections import deque
from typing import NamedTuple

from bench.plan import ASSUMED, MEASURED, SETTINGS, object_seconds

#: Files that the leader of a server replays at a time (docs/dlq.md).
_REPLAYS = 4


class Outage(NamedTuple):
    """What an outage left, and how it went away."""

    files: float  # of all tasks
    task_bytes: float  # in the DLQ of each
    drained_seconds: float  # from S3's return to the last replay
    puts_per_second: float  # meanwhile, of all tasks


def outage(rate: float, tasks: int, seconds: int) -> Outage:
    """Let S3 be down for ``seconds``, under a steady ``rate`` of events a second in all."""
    noticed = seconds + ASSUMED.probe_seconds  # until then batches go to the disk
    fresh = tasks / object_seconds(rate / tasks)  # objects a second
    files = fresh * noticed
    able = tasks * _REPLAYS / (ASSUMED.look_seconds + ASSUMED.put_seconds)
    replays = min(able, ASSUMED.puts_per_prefix - fresh)
    return Outage(
        files=files,
        task_bytes=rate / tasks * MEASURED.stored_bytes * noticed,
        drained_seconds=ASSUMED.probe_seconds + files / replays,
        puts_per_second=fresh + replays,
    )


def puts_at_least(streams: int) -> float:
    """Return the PUTs a second of streams that have hardly an event each."""
    return streams / SETTINGS.flush_interval


class Growth(NamedTuple):
    """What became of a service whose load grew."""

    over_seconds: int  # in which more came than its tasks could take
    over: float  # share of the hour's events: refused, or late
    settled_minutes: float  # until its CPU stayed at the planned share


def growth(factor: float, ramp_seconds: int, tasks: int = 10) -> Growth:
    """Let the load of ``tasks`` at their planned CPU grow to ``factor``, evenly over a time."""
    target = ASSUMED.cpu_share
    running, coming = tasks, deque[tuple[int, int]]()  # second of arrival, how many
    high_minutes, next_decision = 0, 0
    used = had = 0.0  # CPU and tasks of this minute, in task-seconds
    came = refused = 0.0
    over_seconds = settled = 0
    for second in range(3600):
        while coming and coming[0][0] <= second:
            running += coming.popleft()[1]
        risen = min(1.0, second / ramp_seconds) if ramp_seconds else 1.0
        load = tasks * target * (1 + (factor - 1) * risen)  # in tasks' whole CPUs
        came += load
        refused += max(0.0, load - running)
        over_seconds += load > running
        if load > running * target * 1.001:
            settled = second + 1
        used += min(load, running)
        had += running
        if second % 60 < 59:
            continue
        high_minutes = high_minutes + 1 if used > had * target * 1.001 else 0
        if high_minutes >= ASSUMED.alarm_minutes and second >= next_decision:
            wanted = math.ceil(used / 60 / target - 0.001)
            more = wanted - running - sum(count for _, count in coming)
            if more > 0:
                coming.append((second + ASSUMED.start_seconds, more))
                next_decision = second + ASSUMED.cooldown_seconds
        used = had = 0.0
    return Growth(over_seconds, refused / came, settled / 60)
