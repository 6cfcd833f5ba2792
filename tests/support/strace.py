"""strace(1): what the server asks the kernel for, in order, and system calls made to fail."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple
from unittest.mock import patch

import pytest

from tests.support import server
from tests.support.eventually import eventually

_LINE = re.compile(r"(\d+) +(.*)")
_UNFINISHED = re.compile(r"(\w+)\((.*?) *<unfinished \.\.\.>")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (.*)")
_DESCRIPTOR = re.compile(r"(?:AT_FDCWD|\d+)<(.*?)>(?:\(deleted\))?(?:,|$)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_RETURNED = re.compile(r"\d+<(.*)>")


class Call(NamedTuple):
    """One system call. ``entered`` and ``left`` are lines of the log: before means smaller."""

    pid: int
    name: str
    arguments: str
    result: str
    entered: int
    left: int

    @property
    def file(self) -> str:
        """What its first argument, a descriptor, stands for."""
        match = _DESCRIPTOR.match(self.arguments)
        return match[1] if match else ""

    @property
    def strings(self) -> list[str]:
        """The strings among its arguments, escaped as strace does."""
        return _STRING.findall(self.arguments)

    @property
    def opened(self) -> str:
        """The path of the descriptor that it returned."""
        match = _RETURNED.match(self.result)
        return match[1] if match else ""

    @property
    def worked(self) -> bool:
        return not self.result.startswith(("-1", "?"))


def strace_path() -> str | None:
    return shutil.which("strace")


@contextmanager
def under_strace(directory: Path, log: Path, options: list[str]) -> Iterator[None]:
    """Let every server that starts now be traced from its first system call on."""
    command = directory / "traced"
    command.mkdir()
    script = command / "gunicorn"
    real = server.BIN / "gunicorn"
    # -D: the server stays our child, and strace is nobody's
    traced = f"{strace_path()} -D -f -yy -s 65536 -o {log} {' '.join(options)}"
    script.write_text(f'#!/bin/sh\nexec {traced} {real} "$@"\n')
    script.chmod(0o755)
    with patch.object(server, "BIN", command):
        yield


@contextmanager
def injected(pids: list[int], *faults: str, paths: tuple[str, ...] = ()) -> Iterator[None]:
    """Let system calls of running processes fail, as in ``fdatasync:error=EIO``."""
    calls = ",".join(fault.partition(":")[0] for fault in faults)
    command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={calls}"]
    command += [word for fault in faults for word in ("-e", f"inject={fault}")]
    command += [word for path in paths for word in ("-P", path)]
    command += [word for pid in pids for word in ("-p", str(pid))]
    with TemporaryFile() as messages:
        process = subprocess.Popen(command, stderr=messages)

        def said() -> str:
            messages.seek(0)
            return messages.read().decode()

        def attached() -> bool:
            if process.poll() is not None:
                pytest.skip(f"strace can't attach here: {said().strip()}")
            return all(f"Process {pid} attached" in said() for pid in pids)

        try:
            eventually(attached, 20, "strace is attached", last_words=said)
            yield
        finally:
            process.send_signal(signal.SIGINT)  # lets go of them
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:  # it may still wait for threads of one that is dead
                process.kill()
                process.wait(timeout=20)


def calls(log: Path) -> list[Call]:
    """Read a log, the calls in the order in which they were entered."""
    found: list[Call] = []
    begun: dict[int, tuple[str, str, int]] = {}
    for number, line in enumerate(log.read_text(errors="replace").splitlines()):
        match = _LINE.fullmatch(line)
        assert match, f"not a line of strace's: {line[:200]!r}"
        pid, text = int(match[1]), match[2]
        if unfinished := _UNFINISHED.fullmatch(text):
            begun[pid] = (unfinished[1], unfinished[2], number)
            continue
        entered = number
        if resumed := _RESUMED.fullmatch(text):
            name, arguments, entered = begun.pop(pid)
            assert name == resumed[1], text
            text = f"{name}({arguments}{resumed[2]}"
        if call := _CALL.fullmatch(text):
            found.append(Call(pid, call[1], call[2], call[3], entered, number))
        else:
            assert text.startswith(("+++", "---")), f"not understood: {text[:200]!r}"
    return sorted(found, key=lambda call: call.entered)


def over(log: Path, pid: int) -> bool:
    """Tell whether a log is complete: the process has ended."""
    return f"\n{pid} +++ " in re.sub(r" +", " ", log.read_text(errors="replace"))
