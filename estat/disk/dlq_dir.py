"""Tells whether DLQ_DIR is a safe place: whose it is, and what file system it lies on.

In a directory like /tmp everybody may make ``dlq`` before the server does, and put files
into it. Its files are read with care (see ``files``), but whoever owns the directory may
read accepted events, move them and delete them. The file system says how long they last.
A command that root runs acts as the server's user, whom it knows by what lies there.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from estat.disk import files
from estat.disk.dlq import PENDING
from estat.disk.server_directory import SERVERS
from estat.text import shown

_SHOWN_CHARS = 300  # of a path

_CLEANED = ("/tmp", "/var/tmp")  # noqa: S108 - systemd-tmpfiles(8) removes old files there
_MOUNTS = "/proc/self/mountinfo"
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
    real = os.path.realpath(directory)
    place = os.open(real, os.O_PATH | os.O_DIRECTORY)
    try:
        status = os.fstat(place)
        told = []
        for path, found in ((directory, os.lstat(directory)), (real, status)):
            if not files.is_trusted(found.st_uid, place):
                told.append(_of_a_stranger(path, found))
    finally:
        files.close(place)
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        told.append(
            f"everybody may write to {real} (mode {stat.S_IMODE(status.st_mode):04o}), and so "
            "delete or rename what waits there"
        )
    return list(dict.fromkeys(told))


def _of_a_stranger(path: str, found: os.stat_result) -> str:
    """Return a warning of a DLQ_DIR, or a link to it, of another user; raise PermissionError.

    That is where anybody may have made it.
    """
    kind = "link" if stat.S_ISLNK(found.st_mode) else "directory"
    problem = f"the {kind} {path} belongs to user {found.st_uid}, not to user {os.geteuid()}"
    parent = os.path.dirname(path)
    if _others_may_write(parent):
        problem += f", and others may write to {parent}, so anybody may have made it"
        todo = "name another directory, or give this one to the server's user"
        raise PermissionError(errno.EPERM, f"{problem}: {todo}")
    return f"{problem}: who owns it can read, change and delete what waits there"


@contextlib.contextmanager
def acting_as_owner(path: str, is_needed: bool = True) -> Iterator[None]:
    """Let root act as the user and group of a DLQ_DIR, or another directory, for this block.

    So it leaves nothing there that they can't read or delete, and what they have put there
    leads it nowhere. All others act as who they are. Raises DiskError.
    """
    if not is_needed or os.getresuid()[2] != 0:
        yield
        return
    before = os.geteuid(), os.getegid(), os.getgroups()
    os.seteuid(0)
    try:
        with files.disk_errors("act as the owner of", path):
            owner = _owner(os.path.realpath(path))
            wanted = owner.st_uid, owner.st_gid, [owner.st_gid]
            try:
                _become(*(before if owner.st_uid == before[0] else wanted))
            except OSError as exc:
                if exc.errno != errno.EINVAL:
                    raise
                _become(*before)  # whom this user namespace has not, its root can do nothing to
        yield
    finally:
        os.seteuid(0)
        _become(*before)


def _owner(path: str) -> os.stat_result:
    """Return the owner of a directory, or of what the server has made in it."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    directory = files.open_directory(path, anybodys=True)
    try:
        for name in (SERVERS, PENDING):
            with contextlib.suppress(OSError):
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    return found
        return os.fstat(directory)
    finally:
        files.close(directory)


def _become(user: int, group: int, groups: list[int]) -> None:
    """Change the user and group as which root acts, so that it can go back. Raises OSError."""
    os.setegid(group)
    if groups != os.getgroups():
        os.setgroups(groups)
    os.seteuid(user)


def not_followed(directory: str) -> list[str]:
    """Return a sentence on links and the like in a DLQ_DIR, if there are any."""
    found = list(files.not_followed(os.path.realpath(directory)))
    if not found:
        return []
    path, why = found[0]
    more = f"; so are {len(found) - 1} more" if len(found) > 1 else ""
    return [f"{shown(path, _SHOWN_CHARS)} is passed over, as {why}{more}"]


def _others_may_write(path: str) -> bool:
    """Tell whether anybody but this process's user and root may make files in a directory."""
    status = os.stat(path)
    groups = {0, os.getegid(), *os.getgroups()}
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in groups
    by_owner = status.st_uid not in (0, os.geteuid())
    return bool(status.st_mode & stat.S_IWOTH or by_group or by_owner)


def mount_warnings(directory: str, *, synced: bool) -> list[str]:
    """Return a sentence for each way in which the files in ``directory`` are not safe.

    ``synced`` says that DURABILITY is fsync.
    """
    directory = os.path.realpath(directory)
    kind = _file_system(directory)
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


def _file_system(directory: str) -> str:
    """Return the kind of the file system on which a directory lies, or is to be made."""
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    device = os.stat(directory).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError), open(_MOUNTS, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.split(" ")[2] == number:
                return line.partition(" - ")[2].partition(" ")[0]
    return "unknown"  # no /proc: nothing is known, nothing is warned of
