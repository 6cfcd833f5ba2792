"""CPU time of a process and all its descendants, from /proc.

The kernel counts in ticks (10 ms as a rule): fine for seconds, useless for less.
"""

import os

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")

# fields of /proc/<pid>/stat behind the command's name, which may hold blanks; see proc(5)
_PARENT, _UTIME, _CSTIME = 1, 11, 14


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


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor
