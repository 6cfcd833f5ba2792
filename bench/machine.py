"""CPU time of a process and all its descendants, and of all the others, from /proc.

The kernel counts in ticks (10 ms as a rule): fine for seconds, useless for less.
"""

import os

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")

# fields of /proc/<pid>/stat behind the command's name, which may hold blanks; see proc(5)
_PARENT, _UTIME, _CSTIME = 1, 11, 14

# columns of the line "cpu" in /proc/stat: all but idle, iowait, and guest, which user contains
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 1, 2, 3, 6, 7, 8


def tree_seconds(pid: int) -> float:
    """Return the user and system seconds that a process and its descendants have used so far.

    Children that were reaped count too: a worker that dies does not take its share with it.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        parents[int(name)] = int(fields[_PARENT])
        ticks[int(name)] = sum(map(int, fields[_UTIME : _CSTIME + 1]))
    return _TICK_SECONDS * sum(used for p, used in ticks.items() if _descends(p, pid, parents))


def others_seconds() -> float:
    """Return the CPU seconds used so far by all but this process and its descendants.

    What a hypervisor gave to others counts too.
    """
    with open("/proc/stat") as file:
        fields = file.readline().split()
    busy = sum(int(fields[n]) for n in (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL))
    return _TICK_SECONDS * busy - tree_seconds(os.getpid())


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor
