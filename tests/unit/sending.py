"""``estat send`` as its tests run it: in this process, on a file, its summary as JSON."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from estat.cli import main


class Sent(NamedTuple):
    code: int
    summary: dict[str, Any]
    stderr: str


class Send:
    """Runs ``estat send --json`` on a file with this content."""

    def __init__(self, url: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._path = directory / "events"
        self._capsys = capsys

    def __call__(self, content: bytes, *options: str) -> Sent:
        self._path.write_bytes(content)
        code = run(str(self._path), "--url", self._url, "--json", *options)
        printed = self._capsys.readouterr()
        summary = json.loads(printed.out)
        fates = ("accepted", "refused", "unanswered", "unsent")
        assert summary["read"] == sum(summary[fate] for fate in fates), summary
        return Sent(code, summary, printed.err)


def run(*arguments: str) -> int:
    """Run ``estat send`` with these arguments; return the exit code."""
    return main.main(["send", *arguments])


def lines(count: int) -> bytes:
    """Return events 0, 1, 2 … as JSON lines."""
    return b"".join(b'{"n":%d}\n' % number for number in range(count))
