"""One server's part of a DLQ_DIR that several hosts share (DLQ_SHARED=true).

    DLQ_DIR/servers/<server>/lock        held (flock) as long as a process of the server lives
    DLQ_DIR/servers/<server>/heartbeat   touched once a second, and names the host's boot
    DLQ_DIR/servers/<server>/journal, pending, …   what DLQ_DIR holds otherwise

A lock is not proof enough across hosts: one that was cut off from the volume
loses its locks without a word. So the owner proves every second that it can
still write there, and stops writing when it could not for ``LEASE_SECONDS``;
others wait for much longer before they take its directory over (``takeover``).
"""

import contextlib
import errno
import os
import time

from estat.disk import files
from estat.disk.directory_lock import LOCK, DirectoryLock
from estat.errors import DiskError
from estat.events import ids
from estat.threads import Offload

SERVERS = "servers"
HEARTBEAT = "heartbeat"

#: How long an owner goes on writing that can't renew its heartbeat.
LEASE_SECONDS = 20.0

#: Files that hold nothing of anybody's; hidden ones are half written.
_OWN = (LOCK, HEARTBEAT, "leader.lock")

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return what names this run of the kernel; empty where it is not to be had."""
    with contextlib.suppress(OSError), open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()
    return ""


class ServerDirectory:
    """The directory of this server. Its lock is inherited by the workers, on purpose."""

    def __init__(self, dlq_dir: str) -> None:
        """Make it. Blocks; raises DiskError."""
        self._lock = DirectoryLock.create(os.path.join(dlq_dir, SERVERS), ids.new_stream())
        self.path = self._lock.path
        files.write_whole(os.path.join(self.path, HEARTBEAT), [boot_id().encode()], files.PRIVATE)

    def release(self) -> bool:
        """Leave the directory to others, or remove it where nothing is left in it.

        Tell whether it was still this server's. Blocks.
        """
        owned = os.path.exists(os.path.join(self.path, HEARTBEAT))
        if owned and is_empty(self.path):
            with contextlib.suppress(DiskError):  # the next server takes it over
                self._lock.destroy()
        self._lock.close()
        return owned


def is_empty(path: str) -> bool:
    """Tell whether neither a batch nor a journal is left in a server's directory."""
    return not any(
        name not in _OWN and not name.startswith(".")
        for _, _, names in os.walk(path)
        for name in names
    )


class Lease:
    """One worker's proof that its server still owns its directory."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, HEARTBEAT)
        self._threads = Offload(1)
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Touch the heartbeat. Raises DiskError; FileNotFoundError says who has the directory."""
        started = time.monotonic()
        with files.disk_errors("utime", self._path):
            self._threads.run(os.utime, self._path)
        self._renewed = started

    def check(self) -> None:
        """Raise DiskError if it is too long since this worker could write there."""
        if time.monotonic() - self._renewed > LEASE_SECONDS:
            error = OSError(errno.ESTALE, "could not be renewed in time")
            raise DiskError("renew", self._path, error)
