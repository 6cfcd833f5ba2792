"""Servers in PID and mount namespaces of their own, as in containers on one host.

None of them sees the processes, the locks in /proc/locks, or the mounts of another. Disk and
network are the host's.
"""

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.server import Server, children

_INIT = Path(__file__).with_name("init.py")


class Isolated(Server):
    """One start of the server; process 1 there is an init, as containers may have one."""

    def _command(self) -> list[str]:
        return [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            f"--kill-child={signal.SIGKILL.name}",
            sys.executable,
            "-I",
            str(_INIT),
            *super()._command(),
        ]

    @property
    def arbiter_pid(self) -> int:
        """The host's name for the arbiter: the eldest of init's children."""
        return children(self._init_pid)[0]

    @property
    def _init_pid(self) -> int:
        return children(self.process.pid)[0]

    def run_inside(self, *command: object) -> None:
        """Run a command that sees the server's mounts and processes."""
        nsenter = ["nsenter", f"--target={self._init_pid}", "--mount", "--pid", *map(str, command)]
        subprocess.run(nsenter, check=True, timeout=20)
