"""Everything that others may put into a DLQ directory, by what it is: one table.

Each entry makes one kind of thing, and returns the path of what must stay as it is. None may be
obeyed, sent, followed or deleted, and none may keep a reader from what is the server's own.
"""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from estat.disk import dlq_file
from estat.disk.dlq import EXPIRED, PENDING, QUARANTINE
from tests.support import forged
from tests.unit.batches import batch
from tests.unit.journals import journal

#: Whose the server's files are, and who puts others beside them, where tests run as root.
OWNER, STRANGER = 65534, 65533

SECRET = b"precious\n"
SLOT = "2025-11-13T06"


class Place(NamedTuple):
    """A server's directory, and one that nobody has any business in."""

    root: Path
    target: Path

    @property
    def slot(self) -> Path:
        return made(self.root / PENDING / SLOT)

    def stream(self, number: int) -> Path:
        """Make the directory of a dead stream, with its lock."""
        directory = made(self.root / "journal" / f"0199c1b2f3a4{number:016x}")
        (directory / "lock").touch()
        return directory


def made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def make_target(target: Path) -> None:
    """Make the place to which forgeries lead, with all that a reader could take for its own."""
    (target / "inside").mkdir(parents=True)
    (target / "secret").write_bytes(SECRET)
    (target / "lock").write_bytes(SECRET)
    (target / name(70)).write_bytes(dlq_bytes(70))
    (target / "000001.journal").write_bytes(journal().data)


def name(seq: int) -> str:
    return dlq_file.file_name(batch(seq=seq))


def dlq_bytes(seq: int) -> bytes:
    return b"".join(dlq_file.pack(batch(seq=seq), "put_failed", ""))


def _link(path: Path, target: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _socket(path: Path) -> Path:
    directory = os.open(path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")  # whose length is bounded
    os.close(directory)
    return path


def _device(path: Path) -> Path:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: it has no end
    return path


def _file(path: Path, data: bytes = b"", size_bytes: int = 0) -> Path:
    path.write_bytes(data)
    if size_bytes:
        os.truncate(path, size_bytes)
    return path


def _directory(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x")
    return path


def _hard_link(place: Place) -> Path:
    place.slot.chmod(0o777)
    path = place.slot / name(30)
    path.hardlink_to(place.target / "secret")
    return path


def _of_a_stranger(place: Place) -> Path:
    place.slot.chmod(0o1777)
    path = _file(place.slot / name(31), dlq_bytes(31))
    os.chown(path, STRANGER, STRANGER)
    return path


def _slot_of_a_stranger(place: Place) -> Path:
    path = made(place.root / EXPIRED / "2025-11-13T04")
    _file(path / name(32), dlq_bytes(32))
    path.parent.chmod(0o1777)
    for each in (path, path / name(32)):
        os.chown(each, STRANGER, STRANGER)
    return path


def _headers(place: Place) -> Path:
    """Write a DLQ file for each change to a header that must not be obeyed."""
    for seq, change in enumerate(forged.changes(str(place.target)).values(), 40):
        path = _file(place.slot / name(seq), forged.dlq_bytes(batch(seq=seq), **change))
    return path


def _journal_headers(place: Place) -> Path:
    for number, change in enumerate(forged.changes(str(place.target)).values(), 40):
        directory = place.stream(number)
        header = journal(stream=directory.name).header
        data = forged.journal_bytes(header, range(1, 11), **change)
        path = _file(directory / "000001.journal", data)
    return path


_BOMB = forged.gzip(b"[" * 10**7)
_HUGE = 2**40

#: By name: what makes it.
FORGERIES: dict[str, Callable[[Place], Path]] = {
    "headers of DLQ files": _headers,
    "headers of journals": _journal_headers,
    "a header that is a bomb": lambda at: _file(at.slot / name(1000), _BOMB),
    "another batch's file": lambda at: _file(at.slot / name(2), dlq_bytes(3)),
    "a later version": lambda at: _file(
        at.slot / name(4), forged.dlq_bytes(batch(seq=4), estat_dlq=2)
    ),
    "an empty file": lambda at: _file(at.slot / name(5)),
    "a huge file": lambda at: _file(at.slot / name(6), dlq_bytes(6), _HUGE),
    "a huge file in quarantine": lambda at: _file(
        made(at.root / QUARANTINE) / "1763017800.5.jsonl.gz", b"", _HUGE
    ),
    "a huge journal": lambda at: _file(at.stream(7) / "000001.journal", journal().data, _HUGE),
    "a name of two lines": lambda at: _file(at.slot / "a\nb\x1b[31m.3.jsonl.gz"),
    "a name that is no text": lambda at: _file(
        Path(os.fsdecode(os.fsencode(at.slot) + b"/\xff\xfe.jsonl.gz"))
    ),
    "an option": lambda at: _file(at.slot / "--yes"),
    "a slot with a name for terminals": lambda at: _file(
        made(at.root / PENDING / "\x1b[2J+") / name(8)
    ),
    "a link in place of a file": lambda at: _link(at.slot / name(70), at.target / name(70)),
    "a link to nowhere": lambda at: _link(at.slot / name(9), at.target / "nothing"),
    "a link in quarantine": lambda at: _link(at.root / QUARANTINE / name(70), at.target / name(70)),
    "a link in place of a slot": lambda at: _link(at.root / EXPIRED / SLOT, at.target),
    "a link in place of a stream": lambda at: _link(
        at.stream(10).with_name(f"0199c1b2f3a4{11:016x}"), at.target
    ),
    "a link in place of a journal": lambda at: _link(
        at.stream(12) / "000001.journal", at.target / "000001.journal"
    ),
    "a pipe in place of a file": lambda at: _fifo(at.slot / name(13)),
    "a pipe in place of a slot": lambda at: _fifo(made(at.root / PENDING) / "2025-11-13T05"),
    "a pipe in quarantine": lambda at: _fifo(made(at.root / QUARANTINE) / "pipe"),
    "a pipe in place of a journal": lambda at: _fifo(at.stream(14) / "000001.journal"),
    "a socket": lambda at: _socket(at.slot / name(15)),
    "a directory in place of a file": lambda at: _directory(at.slot / name(16)),
    "a directory in place of a journal": lambda at: _directory(at.stream(17) / "000001.journal"),
}

#: Those that only root can make; whose they are stays as it is.
BY_ROOT: dict[str, Callable[[Place], Path]] = {
    "a device": lambda at: _device(at.slot / name(18)),
    "a second name of a foreign file": _hard_link,
    "a stranger's file": _of_a_stranger,
    "a stranger's slot": _slot_of_a_stranger,
}


#: What a server hands over to DLQ_PREFIX, for it can't be read.
UNREADABLE = {
    "a header that is a bomb",
    "an empty file",
    "a name of two lines",
    "a name that is no text",
    "an option",
    "a slot with a name for terminals",
}


def plant(place: Place, kind: str) -> Path:
    """Put one forgery into a server's directory."""
    return (FORGERIES | BY_ROOT)[kind](place)


def kinds() -> list[str]:
    """Return what can be made here."""
    return [*FORGERIES, *(BY_ROOT if os.geteuid() == 0 else ())]


def give(directory: Path) -> None:
    """Give what is root's in a directory to the server's user, second names apart."""
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            status = path.lstat()
            if status.st_uid == 0 and (path.is_dir() or status.st_nlink == 1):
                os.lchown(path, OWNER, OWNER)


def open_way(path: Path) -> None:
    """Let every user pass through to a directory of the test's."""
    for parent in (path, *path.parents):
        mode = stat.S_IMODE(parent.stat().st_mode)
        if mode & 0o011 != 0o011:
            parent.chmod(mode | 0o011)


def snapshot(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, owner and content of everything in a directory."""
    found = {}
    for path in directory.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(directory))] = (status.st_mode, status.st_uid, content)
    return found
