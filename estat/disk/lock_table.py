"""Tells whether a file's lock (flock) is held, without touching the lock.

To ask by taking it, even shared and for an instant, would be cheaper, but whoever
tries to take the lock at that instant would believe that its owner lives: a server
would leave a dead stream's journals alone, and after a few looks in a row that found
nothing count their events as lost. So the kernel's table is read instead. It has the
locks of this host, and inside a container only those of processes that can be seen
from there.
"""

import os
import re

from estat.disk import files

_LOCKS = "/proc/locks"
_MOUNTS = "/proc/self/mountinfo"
_DESCRIPTOR = "/proc/self/fdinfo/{}"

#: Of each exclusive lock: major and minor number of the device, and the inode. One who waits
#: for a lock has "->" before FLOCK.
_EXCLUSIVE = re.compile(
    r"^\d+: FLOCK +\S+ +WRITE +\S+ ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE
)
_MOUNT_ID = re.compile(r"^mnt_id:\s+(\d+)$", re.MULTILINE)

#: A table longer than one page is no snapshot: a lock may move while it is read.
_LOOKS = 2


def is_held(path: str) -> bool | None:
    """Tell whether somebody holds the lock on ``path``; None where that can't be known."""
    try:
        descriptor = files.open_file(path, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            about = _text(_DESCRIPTOR.format(descriptor))
        finally:
            os.close(descriptor)
        devices = {(os.major(status.st_dev), os.minor(status.st_dev))}
        mount = _MOUNT_ID.search(about)
        if mount:
            devices |= _devices(mount[1])
        return any(
            (int(major, 16), int(minor, 16)) in devices and int(inode) == status.st_ino
            for _ in range(_LOOKS)
            for major, minor, inode in _EXCLUSIVE.findall(_text(_LOCKS))
        )
    except FileNotFoundError as exc:
        return False if exc.filename == path else None  # else there is no such table
    except OSError:
        return None


def _devices(mount_id: str) -> set[tuple[int, int]]:
    """Return a mount's device as the table has it; stat tells another one for some (btrfs)."""
    for line in _text(_MOUNTS).splitlines():
        number, _, device, *_ = line.split()
        if number == mount_id:
            major, _, minor = device.partition(":")
            return {(int(major), int(minor))}
    return set()


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
