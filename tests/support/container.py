"""Runs an image as a container engine would, by the image's own configuration.

Its root file system is read-only, but for its volumes and a tmpfs at /dev/shm. It has the image's
user, environment and directory, and no privileges; its server is process 1 of a PID namespace. The
network is the host's. There is no cgroup, no seccomp profile and no layered file system.
"""

import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.server import DEFAULTS, Server, children

# $1: the root, $2: the volumes' directory on the host, $3: user:group, $4: the directory to be
# in; the volumes' paths, "--", and the command
_START = """
set -e
root=$1 volumes=$2 user=$3 directory=$4; shift 4
mount --rbind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero random urandom; do
    touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -o remount,ro "$root/dev"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
while [ "$1" != -- ]; do mount --bind "$volumes$1" "$root$1"; shift; done; shift
mount -o remount,ro,bind "$root"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" \
    /usr/bin/python3 -c 'import os, sys; _, d, *c = sys.argv; os.chdir(d); os.execv(c[0], c)' \
    "$directory" "$@"
"""
_TOOLS = "/usr/sbin:/usr/bin:/sbin:/bin"


class Container(Server):
    """One start of an image whose root is mounted at ``root``."""

    def __init__(
        self, root: Path, image: Mapping[str, Any], directory: Path, settings: Mapping[str, str]
    ) -> None:
        super().__init__(directory, settings)
        self._root = root
        self._image = image
        self._volumes = directory / "volumes"
        self.dlq_dir = self._volumes / "var/lib/estat/dlq"
        self.environ = {
            **dict(line.split("=", 1) for line in image["Env"]),
            **DEFAULTS,
            "HTTP_ADDR": f"127.0.0.1:{self.port}",
            **settings,
        }
        for path in image["Volumes"]:
            # as an engine does with a new volume: what the image has there, owners included
            target = self._volumes / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", f"{root}{path}", target], timeout=60, check=True)

    def _command(self) -> list[str]:
        return self._contained(self._image["Entrypoint"])

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container of its own, to its end."""
        return subprocess.run(
            self._contained(command),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside the server, in its container."""
        user, group = self._image["User"].split(":")
        return subprocess.run(
            [
                shutil.which("nsenter") or "",
                f"--target={self.arbiter_pid}",
                "--mount",
                "--pid",
                "--root",
                "--wd",
                f"--setuid={user}",
                f"--setgid={group}",
                *command,
            ],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def arbiter_pid(self) -> int:
        """The host's name for process 1 of the container."""
        return children(self.process.pid)[0]

    def holds_back(self, number: int) -> bool:
        """Tell whether the server, as process 1, has blocked a signal.

        unshare's own child blocks SIGTERM too, until it becomes the command.
        """
        for pid in children(self.process.pid):
            status = dict(
                line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            )
            blocked = int(status["SigBlk"], 16) & 1 << number - 1
            return bool(blocked) and status["Name"].strip().startswith("python")
        return False

    def _contained(self, command: Any) -> list[str]:
        unshare = shutil.which("unshare") or ""
        return [
            unshare,
            "--mount",
            "--pid",
            "--fork",
            f"--kill-child={signal.SIGKILL.name}",
            "/bin/sh",
            "-c",
            f"PATH={_TOOLS}\n{_START}",
            "sh",
            str(self._root),
            str(self._volumes),
            self._image["User"],
            self._image["WorkingDir"],
            *self._image["Volumes"],
            "--",
            *command,
        ]
