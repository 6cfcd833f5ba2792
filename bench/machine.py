"""The machine that is measured on: CPU time from /proc, file systems, and what figures depend on.

The kernel counts CPU in ticks (10 ms as a rule): fine for seconds, useless for less.
"""

import os
import platform
import tempfile
from importlib import metadata
from typing import NamedTuple

from bench import BenchError

_LIBRARIES = ("gunicorn", "gevent", "falcon", "orjson", "isal", "estat-ingest")

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")

# fields of /proc/<pid>/stat behind the command's name, which may hold blanks; see proc(5)
_PARENT, _UTIME, _CSTIME = 1, 11, 14

# columns of the line "cpu" in /proc/stat: all but idle, iowait, and guest, which user contains
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 1, 2, 3, 6, 7, 8


class FileSystem(NamedTuple):
    """What a directory is on."""

    kind: str
    device: str

    @property
    def in_memory(self) -> bool:
        """Whether a sync has nothing to do there."""
        return self.kind in {"tmpfs", "ramfs"}


def describe(wrk_version: str | None) -> str:
    """Describe what the figures depend on."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    if wrk_version:
        versions += f"; wrk {wrk_version}"
    return (
        f"- Machine: {_cpu_model()}, {len(os.sched_getaffinity(0))} cores, "
        f"Linux {platform.release()}, load average {os.getloadavg()[0]:.1f} before the run\n"
        f"- Python {platform.python_version()}; {versions}"
    )


def directory(named: str | None) -> str:
    """Return the directory to make files in: the one named, or the first on a disk.

    A sync costs nothing in memory, and the system's own temporary directory is a
    tmpfs in many places. Raises BenchError.
    """
    if named:
        if not os.path.isdir(named):
            raise BenchError(f"{named} is not a directory")
        return os.path.abspath(named)
    candidates = [tempfile.gettempdir(), "/var/tmp", os.getcwd()]
    usable = [path for path in candidates if os.access(path, os.W_OK)]
    on_disk = [path for path in usable if not file_system(path).in_memory]
    return (on_disk or usable)[0]


def file_system(path: str) -> FileSystem:
    """Look a directory up in the table of mounts."""
    inside = os.path.realpath(path) + "/"
    best, found = "", FileSystem("unknown file system", "unknown device")
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            device, mount_point, kind, *_ = line.split(" ")
            mount_point = mount_point.replace("\\040", " ").rstrip("/") + "/"
            # the last of several on one mount point is the one that is seen
            if inside.startswith(mount_point) and len(mount_point) >= len(best):
                best, found = mount_point, FileSystem(kind, device)
    return found


def cpu_seconds(pid: int) -> float:
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


def others_cpu_seconds() -> float:
    """Return the CPU seconds used so far by all but this process and its descendants.

    What a hypervisor gave to others counts too.
    """
    with open("/proc/stat") as file:
        fields = file.readline().split()
    busy = sum(int(fields[n]) for n in (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL))
    return _TICK_SECONDS * busy - cpu_seconds(os.getpid())


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()  # arm64 names no model
