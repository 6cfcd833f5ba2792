"""A reader of the documentation, who types its commands in a directory of their own."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Self

from tests.support.command import run
from tests.support.eventually import eventually
from tests.support.server import ROOT

#: What goes on until Ctrl-C; the next commands are typed in a second terminal.
_SERVES = re.compile(r"([A-Z_]+=\S+ )*(make run-local|gunicorn -c|(\S+/)?estat (serve|demo))\b")

_INSTALL_SECONDS = 300

_UNTRACKED = shutil.ignore_patterns(
    *(".git", ".venv", "venv", "data", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"),
    *("build", "dist", "*.so"),
)


def copy_repository(directory: Path) -> None:
    """Copy what git has of this repository into a new directory."""
    shutil.copytree(ROOT, directory, symlinks=True, ignore=_UNTRACKED)


class Reader:
    """Two terminals: in one a server runs, in the other commands are typed.

    ``instead`` has what is to be typed in the place of a page's example: an own port for 8080.
    """

    def __init__(
        self, directory: Path, port: int, environ: Mapping[str, str], instead: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.environ = dict(environ)
        self.printed: dict[str, str] = {}
        self._port = port
        self._instead = instead
        self._server: subprocess.Popen[bytes] | None = None
        self._log = directory / "first-terminal.log"

    def type(self, commands: list[str]) -> None:
        """Type the commands of one block; AssertionError if one of them fails."""
        for command in commands:
            if _SERVES.match(command):
                self.press_ctrl_c()
                self._serve(command)
            elif command.startswith("zcat"):
                # "after five seconds", the page says
                eventually(lambda c=command: self._run(c), 60, f"{command} prints something")
            else:
                self._run(command)

    def press_ctrl_c(self) -> None:
        """Stop the server as a terminal does, if one runs: every process of it gets SIGINT."""
        if self._server is not None:
            server, self._server = self._server, None
            os.killpg(server.pid, signal.SIGINT)
            server.wait(timeout=60)

    def read_log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(timeout=20)

    def _adapted(self, command: str) -> str:
        for example, own in self._instead.items():
            command = command.replace(example, own)
        return command

    def _serve(self, command: str) -> None:
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                ["bash", "-c", self._adapted(command)],
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # the first start may make its virtual environment
        eventually(self._is_ready, _INSTALL_SECONDS, f"{command} serves", last_words=self.read_log)

    def _is_ready(self) -> bool:
        assert self._server is not None
        if self._server.poll() is not None:
            raise RuntimeError(f"ended with {self._server.returncode}:\n{self.read_log()}")
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def _run(self, command: str) -> str:
        """Run one command; what it exports stays, as in a terminal."""
        variables = self.directory / "variables"
        result = run(
            ["bash", "-euo", "pipefail", "-c", f"{self._adapted(command)}\nenv -0 >{variables}"],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}{self.read_log()}"
        pairs = (line.partition("=") for line in variables.read_text().split("\0") if line)
        self.environ = {name: value for name, _, value in pairs}
        self.printed[command] = result.stdout
        return result.stdout
