"""Where the benchmark's files are made, and what file system that is.

A sync costs nothing in memory, so a directory on a disk is preferred: the
system's own temporary directory is a tmpfs in many places.
"""

import os
import tempfile
from typing import NamedTuple

from bench.errors import BenchError

_IN_MEMORY = ("tmpfs", "ramfs")


class FileSystem(NamedTuple):
    """What a directory is on."""

    kind: str
    device: str

    @property
    def in_memory(self) -> bool:
        """Whether a sync has nothing to do there."""
        return self.kind in _IN_MEMORY


def choose(named: str | None) -> str:
    """Return the directory to make files in: the one named, or the first on a disk.

    Raises BenchError.
    """
    if named:
        if not os.path.isdir(named):
            raise BenchError(f"{named} is not a directory")
        return os.path.abspath(named)
    candidates = [tempfile.gettempdir(), "/var/tmp", os.getcwd()]
    usable = [path for path in candidates if os.access(path, os.W_OK)]
    on_disk = [path for path in usable if not file_system(path).in_memory]
    return (on_disk or usable)[0]


def file_system(directory: str) -> FileSystem:
    """Look a directory up in the table of mounts."""
    inside = os.path.realpath(directory) + "/"
    best, found = "", FileSystem("unknown file system", "unknown device")
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            device, mount_point, kind, *_ = line.split(" ")
            mount_point = mount_point.replace("\\040", " ").rstrip("/") + "/"
            # the last of several on one mount point is the one that is seen
            if inside.startswith(mount_point) and len(mount_point) >= len(best):
                best, found = mount_point, FileSystem(kind, device)
    return found
