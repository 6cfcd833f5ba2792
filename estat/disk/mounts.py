"""Tells what the file system under a directory means for the promise."""

import os

_CLEANED = ("/tmp", "/var/tmp")  # noqa: S108 - systemd-tmpfiles(8) removes old files there


_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs")


def warnings(
    directory: str, mounts_file: str = "/proc/self/mounts", *, shared: bool = False
) -> list[str]:
    """Return a sentence for each way in which the files in ``directory`` are not safe.

    ``shared`` says that DLQ_SHARED is on.
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
    elif kind in _NETWORK and not shared:
        found.append(
            f"{directory} is on the network ({kind}): if another host uses it too, both need "
            "DLQ_SHARED=true"
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
