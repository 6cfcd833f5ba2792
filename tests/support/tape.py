"""``os`` for code that writes to disk: it does what it is asked for, and remembers each step.

The test says which call fails, and after which step the process dies.
"""

import errno
import io
import os
from typing import Any, NamedTuple

#: What can fail.
CALLS = [
    "write",
    "short_write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "truncate",
    "open",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
]


class Killed(BaseException):
    """The process is dead: not a step more, not even to tidy up."""


class Step(NamedTuple):
    """What was done. Paths are relative to the root; files that are open go by a number."""

    call: str
    path: str = ""
    file: int = 0
    other: str = ""  # the second path
    at: int = 0
    data: bytes = b""
    worked: bool = True
    mark: Any = None  # what the test has to say at this point


class Tape:
    """``os`` for one process after the other, all in one directory."""

    def __init__(self, root: str, streams: int = 0) -> None:
        self.root = root
        self._streams = streams
        self.steps: list[Step] = []
        self.now = 1763017800.0
        self._faults: dict[str, int] = {}  # call -> how many come before the one that fails
        self._numbers: dict[int, int] = {}  # descriptor -> file
        self._files = 0
        self._names: dict[str, int] = {}  # path -> file, as far as this tape has opened it
        self._open: set[int] = set()
        self._steps_left: int | None = None

    def mark(self, mark: object) -> None:
        """Note that something has happened that is no step."""
        self.steps.append(Step("mark", mark=mark))

    def fail(self, call: str, after: int = 0) -> None:
        """Let the next call of this name fail, or the one after so many.

        "short_write" lets a write end half done.
        """
        self._faults[call] = after

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._faults.clear()

    def kill_after(self, steps: int) -> None:
        """Let the process die after so many more steps."""
        self._steps_left = steps

    def bury(self) -> None:
        """Close what the dead process had open, as the kernel does, so that its locks are free."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
        self._numbers.clear()
        self._faults.clear()
        self._steps_left = None

    @property
    def open_files(self) -> int:
        return len(self._open)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # --- os

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: "int | None" = None) -> int:
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        if new:
            self._before("open")
        descriptor = os.open(path, flags, mode)
        self._opened(path, descriptor, new)
        self._open.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        self._numbers.pop(descriptor, None)
        os.close(descriptor)

    def closerange(self, low: int, high: int) -> None:
        for descriptor in range(low, high):
            self.close(descriptor)

    def write(self, descriptor: int, data: "bytes | memoryview") -> int:
        self._before("write")
        short = self._fails("short_write")
        kept = bytes(data[: len(data) // 2] if short else data)
        at = os.fstat(descriptor).st_size  # every file here is only appended to
        written = os.write(descriptor, kept)
        assert written == len(kept)
        self._did("write", file=self._numbers[descriptor], at=at, data=kept)
        return written

    def fsync(self, descriptor: int) -> None:
        self._sync("fsync", descriptor)

    def fdatasync(self, descriptor: int) -> None:
        self._sync("fdatasync", descriptor)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._before("ftruncate")
        os.ftruncate(descriptor, size)
        self._did("truncate", file=self._numbers[descriptor], at=size)

    def truncate(self, path: str, size: int) -> None:
        self._before("truncate")
        os.truncate(path, size)
        self._did("truncate", file=self._names[self._relative(path)], at=size)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._before("mkdir")
        os.mkdir(path, mode)
        self._names.pop(self._relative(path), None)
        self._did("mkdir", self._relative(path))

    def rmdir(self, path: str) -> None:
        self._before("rmdir")
        os.rmdir(path)
        self._names.pop(self._relative(path), None)
        self._did("rmdir", self._relative(path))

    def rename(self, path: str, other: str) -> None:
        self._before("rename")
        os.rename(path, other)
        self._moved(self._relative(path), self._relative(other))
        self._did("rename", self._relative(path), other=self._relative(other))

    def link(self, path: str, other: str) -> None:
        self._before("link")
        os.link(path, other)
        self._names[self._relative(other)] = self._names[self._relative(path)]
        self._did("link", self._relative(path), other=self._relative(other))

    def unlink(self, path: str) -> None:
        self._before("unlink")
        os.unlink(path)
        self._names.pop(self._relative(path), None)
        self._did("unlink", self._relative(path))

    # --- the built-in open, and time

    def open_file(self, path: str, mode: str = "r", buffering: int = -1) -> Any:
        if mode != "wb":
            return open(path, mode, buffering)
        self._before("open")
        new = not os.path.lexists(path)
        assert new, "a new file gets a name of its own"
        file = io.FileIO(path, "wb")
        self._opened(path, file.fileno(), new)
        return file

    def time(self) -> float:
        return self.now

    def new_stream(self) -> str:
        self._streams += 1
        return f"{int(self.now * 1000):012x}{self._streams:016x}"

    # --- inside

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _before(self, call: str) -> None:
        if self._steps_left is not None:
            if self._steps_left <= 0:
                raise Killed
            self._steps_left -= 1
        if self._fails(call):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _fails(self, call: str) -> bool:
        before = self._faults.pop(call, None)
        if before:
            self._faults[call] = before - 1
        return before == 0

    def _did(self, call: str, path: str = "", **facts: Any) -> None:
        self.steps.append(Step(call, path, **facts))

    def _opened(self, path: str, descriptor: int, new: bool) -> None:
        relative = self._relative(path)
        if relative.startswith(os.pardir):
            return  # above the root nothing is lost
        if new:
            self._files += 1
            self._names[relative] = self._files
            self._did("create", relative, file=self._files)
        elif relative not in self._names:  # from before this tape, or a directory
            self._files += 1
            self._names[relative] = self._files
            self._did("known", relative, file=self._files)
        self._numbers[descriptor] = self._names[relative]

    def _moved(self, old: str, new: str) -> None:
        self._names.pop(new, None)
        for name in [n for n in self._names if n == old or n.startswith(old + os.sep)]:
            self._names[new + name[len(old) :]] = self._names.pop(name)

    def _sync(self, call: str, descriptor: int) -> None:
        file = self._numbers.get(descriptor)
        if file is None:
            return
        try:
            self._before(call)
        except OSError:
            self._did(call, file=file, worked=False)
            raise
        self._did(call, file=file)  # it need not happen for real
