"""Small file systems that can be filled, made read-only and broken."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from tests.support.command import run
from tests.support.eventually import eventually


def _mount(*words: object) -> None:
    done = run(["mount", *map(str, words)])
    if done.returncode:
        pytest.skip(f"can't mount here: {done.stderr.strip()}")


@contextmanager
def _mounted(directory: Path, *words: object) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    _mount(*words, directory)
    try:
        yield
    except BaseException:
        # lazily: a server's directory is in use until its own fixture ends
        subprocess.run(["umount", "-l", directory], check=True)
        raise
    _unmount(directory)


def _unmount(directory: Path) -> None:
    """Unmount as soon as nothing is in use any more."""

    def unmounted() -> bool:
        done = subprocess.run(["umount", directory], capture_output=True, check=False)
        return done.returncode == 0

    eventually(unmounted, 20, f"{directory} is not in use any more")


@contextmanager
def tmpfs(directory: Path, size_bytes: int, files: int = 0) -> Iterator[None]:
    """Have a file system in memory at ``directory``, with room for so much, and so many files."""
    options = f"size={size_bytes},nr_inodes={files}"
    with _mounted(directory, "-t", "tmpfs", "-o", options, "tmpfs"):
        yield


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Let every path in ``directory`` lie on a read-only mount; open files can be written on.

    The same mount can't be made read-only as long as a file on it is open for writing.
    """
    with _mounted(directory, "--bind", directory):
        _mount("-o", "remount,bind,ro", directory)
        yield


@contextmanager
def ext4(directory: Path, image: Path, *, make: bool, files: int = 0) -> Iterator[None]:
    """Have a journaling file system at ``directory``; ``make`` it, or take it as it was left.

    One that is made has room for so many ``files``, or for as many as is usual.
    """
    if make:
        if not shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin"):
            pytest.skip("mkfs.ext4 is missing")
        with image.open("wb") as file:
            file.truncate(16 * 1024 * 1024)
        inodes = ["-N", str(files)] if files else []
        subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", *inodes, image], check=True)
    with _mounted(directory, "-o", "loop", image):
        yield


def abort(directory: Path) -> None:
    """Let an ext4 meet a fatal error: read-only at once, and what was not synced is lost."""
    _mount("-o", "remount,abort", directory)


def fill(directory: Path) -> Path:
    """Take every byte that is left; return the file that has them."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return ballast


def fill_files(directory: Path) -> Path:
    """Take every file (inode) that is left; return the directory that has them."""
    ballast = directory / "ballast"
    ballast.mkdir()
    with suppress(OSError):
        for number in count():
            (ballast / str(number)).touch()
    return ballast
