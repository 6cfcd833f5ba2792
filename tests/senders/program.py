"""A sender in a process of its own."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Self

from tests.support.eventually import eventually

_SECONDS = 60


class Program:
    """Runs a sender, which reads lines with the names of events that it is to send."""

    def __init__(self, argv: list[str], environ: Mapping[str, str] | None = None) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self._process = subprocess.Popen(
            argv,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            text=True,
        )

    def give(self, names: list[str]) -> None:
        assert self._process.stdin
        self._process.stdin.write(" ".join(names) + "\n")
        self._process.stdin.flush()

    def said(self) -> str:
        """Return what it has written until now."""
        return os.pread(self._output.fileno(), 1_000_000, 0).decode(errors="replace")

    def wait_until_it_says(self, words: str) -> None:
        eventually(lambda: words in self.said(), _SECONDS, f"it says {words}", last_words=self.said)

    def end(self) -> str:
        """Give it nothing more; return what it says until its end, and the status of that."""
        self._process.communicate(timeout=_SECONDS)
        return f"{self.said()}ended with {self._process.returncode}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._output.close()
