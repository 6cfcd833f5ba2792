"""Tells whether DLQ_DIR is a safe place: whose it is, and what file system it lies on.

In a directory like /tmp everybody may make ``dlq`` before the server does, and put files
into it. Its files are read with care (see ``files``), but whoever owns the directory may
read accepted events, move them and delete them. The file system says how long they last.
"""

import errno
import os
import stat

from estat.disk import files
from estat.events.text import excerpt

_SHOWN_CHARS = 300  # of a path

_CLEANED = ("/tmp", "/var/tmp")  # noqa: S108 - systemd-tmpfiles(8) removes old files there
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs")


def owner_warnings(directory: str) -> list[str]:
    """Return sentences to warn of; raise DiskError if a DLQ_DIR must not be used.

    One that is not there is fine.
    """
    with files.disk_errors("use", directory):
        try:
            return _of_owners(os.path.abspath(directory))
        except FileNotFoundError:
            return []


def _of_owners(directory: str) -> list[str]:
    entry, status = os.lstat(directory), os.stat(directory)
    real = os.path.realpath(directory)
    told = []
    for place, found in ((directory, entry), (real, status)):
        if files.is_trusted(found.st_uid):
            continue
        kind = "link" if stat.S_ISLNK(found.st_mode) else "directory"
        problem = f"the {kind} {place} belongs to user {found.st_uid}, not to user {os.geteuid()}"
        parent = os.path.dirname(place) or "."
        if _others_may_write(parent):
            problem += f", and others may write to {parent}, so anybody may have made it"
            todo = "name another directory, or give this one to the server's user"
            raise PermissionError(errno.EPERM, f"{problem}: {todo}")
        told.append(f"{problem}: who owns it can read, change and delete what waits there")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        told.append(
            f"everybody may write to {real} (mode {stat.S_IMODE(status.st_mode):04o}), and so "
            "delete or rename what waits there"
        )
    return list(dict.fromkeys(told))


def not_followed(directory: str) -> list[str]:
    """Return a sentence on links and the like in a DLQ_DIR, if there are any."""
    found = list(files.not_followed(os.path.realpath(directory)))
    if not found:
        return []
    path, why = found[0]
    more = f"; so are {len(found) - 1} more" if len(found) > 1 else ""
    return [f"{excerpt(path, _SHOWN_CHARS)} is passed over, as {why}{more}"]


def _others_may_write(path: str) -> bool:
    """Tell whether anybody but this process's user and root may make files in a directory."""
    status = os.stat(path)
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, *_groups())
    return bool(status.st_mode & stat.S_IWOTH or by_group or not files.is_trusted(status.st_uid))


def _groups() -> set[int]:
    return {os.getegid(), *os.getgroups()}


def mount_warnings(
    directory: str, mounts_file: str = "/proc/self/mounts", *, synced: bool
) -> list[str]:
    """Return a sentence for each way in which the files in ``directory`` are not safe.

    ``synced`` says that DURABILITY is fsync.
    """
    directory = os.path.realpath(directory)
    kind = _file_system(directory, mounts_file)
    found = []
    if kind in ("tmpfs", "ramfs"):
        found.append(f"{directory} is in memory ({kind}): its files are gone after a reboot")
    elif kind == "overlay":
        found.append(
            f"{directory} is in the container's own layer: its files go with the container; "
            "mount a volume"
        )
    elif kind in _NETWORK and not synced:
        found.append(
            f"{directory} is on the network ({kind}): what this host had not sent there yet goes "
            "with it; set DURABILITY=fsync"
        )
    if any(directory == place or directory.startswith(place + "/") for place in _CLEANED):
        found.append(f"{directory} is cleaned by the system from time to time")
    return found


def _file_system(directory: str, mounts_file: str) -> str:
    best, kind = "", "unknown"
    try:
        with open(mounts_file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                _, mount_point, fs_type, *_ = line.split(" ")
                mount_point = mount_point.replace("\\040", " ")
                inside = (directory + "/").startswith(mount_point.rstrip("/") + "/")
                if inside and len(mount_point) >= len(best):
                    best, kind = mount_point, fs_type
    except OSError:
        return "unknown"  # no /proc: nothing is known, nothing is warned of
    return kind
