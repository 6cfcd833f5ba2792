"""The hours that a server has open: in a file for each, what became of its batches.

    hours/<server>[.<n>]/2026-11-27T18-1f2e3d4c      an hour of one bucket and prefix
    ["my-bucket","raw/dt=2026-11-27/hr=18/….jsonl.gz",101,400,"stored"]

A line holds the bucket and key of a batch, its first and last id, and what became of it. The file
is made with the server's first batch of the hour and removed once the hour is closed (see
``pipeline.closing``). ``.<n>`` stands behind a server whose directory was taken over. Whoever
writes to a file or removes it has it locked meanwhile. A line that can't be read is passed over.
All calls block, and raise DiskError.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from estat.disk import directory_lock, files, journal, journal_file, locks
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.errors import DiskError, LaterVersion, NotOurs, Unreadable
from estat.events import ids
from estat.events.closed_hour import FATES, OPENED, Note

DIRECTORY = "hours"

_NAME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9a-f]{8}")
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_TRIES = 3

#: An hour's name is that of a zone, and a file has unix time: they are at most so far apart.
_FAR_SECONDS = 28 * 3600


class HourFile(NamedTuple):
    """One server's file of an hour."""

    server: str
    path: str

    @property
    def name(self) -> str:
        """What names the hour, whichever server's it is."""
        return os.path.basename(self.path)


def name_of(bucket: str, key: str) -> str:
    """Return the name of the file for a batch's hour; empty for a record, which has no hour."""
    try:
        prefix, partition, *_ = ids.read_key(key)
    except NotOurs:
        return ""
    return f"{name_of_partition(partition)}-{zlib.crc32(f'{bucket}/{prefix}'.encode()):08x}"


def name_of_partition(partition: str) -> str:
    """Return what the names of the files for a partition begin with."""
    return partition.removeprefix("dt=").replace("/hr=", "T")


def number_of(name: str) -> int:
    """Return the hour of a file by its name, as ``ids.Key`` numbers it."""
    return int("".join(filter(str.isdecimal, name[:13])))


def by_hour(notes: list[Note]) -> dict[str, list[Note]]:
    """Return notes by the names of the files that they are for."""
    found: dict[str, list[Note]] = {}
    for note in notes:
        found.setdefault(name_of(note.bucket, note.key), []).append(note)
    return found


def append(root: str, notes: list[Note]) -> None:
    """Write notes to the files of their hours, which are made if they are not there."""
    for name, found in by_hour(notes).items():
        # a line that was cut off in front of it must not take it along
        data = b"".join(b"\n%b\n" % json.dumps(note).encode() for note in found)
        with files.disk_errors("append", os.path.join(root, DIRECTORY)):
            for _ in range(_TRIES):
                with contextlib.suppress(FileNotFoundError):  # the leader has removed something
                    _append(_path(root, name, found), data, files.PRIVATE._replace(top=root))
                    break
            else:
                raise OSError(errno.ESTALE, f"{name} is removed again and again")


def _path(root: str, name: str, notes: list[Note]) -> str:
    """Return the file for notes: what was taken over belongs to who had the hour open."""
    own = os.path.join(root, DIRECTORY, os.path.basename(root), name)
    if not os.path.lexists(own) and all(note.fate != OPENED for note in notes):
        for file in found_in(root):
            if file.name == name:
                return file.path
    return own


def _append(path: str, data: bytes, access: files.Access) -> None:
    """Write to a file, which is made durable with its first line.

    Raises FileNotFoundError where the leader removes it.
    """
    directory = os.path.dirname(path)
    try:
        descriptor = files.open_file(path, _APPEND, access.file)
    except FileNotFoundError:
        files.make_directories(directory, access)
        descriptor = files.open_file(path, _APPEND, access.file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # nobody has it for longer than a write takes
        is_first = os.fstat(descriptor).st_size == 0
        if not locks.is_at(path, descriptor):
            raise FileNotFoundError(errno.ENOENT, "removed since it was opened", path)
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, "short write")
        if is_first:
            os.fsync(descriptor)
            files.sync_directory(directory)
    finally:
        os.close(descriptor)


def found_in(root: str) -> list[HourFile]:
    """Return the files of all hours that are open here, oldest hours first."""
    found = []
    place = os.path.join(root, DIRECTORY)
    with files.disk_errors("scan", place):
        for directory in files.directory_names(place):
            server = directory_lock.stream_of(directory)
            if ids.started_at(server) is not None:
                names = filter(_NAME.fullmatch, files.file_names(os.path.join(place, directory)))
                found += [HourFile(server, os.path.join(place, directory, name)) for name in names]
    return sorted(found, key=lambda file: (file.name, file.path))


def read(file: HourFile) -> tuple[list[Note], int]:
    """Return the notes of an hour, and the bytes in which they are."""
    data = files.read_whole(file.path)
    notes = (_note(line, file.name) for line in data.split(b"\n") if line)
    return [note for note in notes if note], len(data)


def _note(line: bytes, name: str) -> Note | None:
    """Read a line; None of one that this server does not write."""
    try:
        note = Note(*json.loads(line))
        stream = ids.read_key(note.key).stream
        ids.check(note.bucket, note.key, ids.stem(note.key), stream)
        ids.check_number("first", note.first)
        ids.check_number("last", note.last)
    except (ValueError, TypeError, RecursionError, NotOurs):
        return None
    is_right = note.fate in FATES and note.first and name_of(note.bucket, note.key) == name
    return note if is_right else None


def remove(file: HourFile, size_bytes: int) -> bool:
    """Remove a file that has not grown since it had so many bytes; tell whether it is gone."""
    with files.disk_errors("unlink", file.path):
        try:
            descriptor = locks.lock(file.path)
        except BlockingIOError:
            return False  # it grows
        try:
            if os.fstat(descriptor).st_size != size_bytes:
                return False
            os.unlink(file.path)
        finally:
            os.close(descriptor)
    files.remove_empty(os.path.dirname(file.path))
    return True


def of_files(dlq: DeadLetterQueue, names: set[str], zone: ZoneInfo) -> set[str]:
    """Return those of ``names`` of which the DLQ has events, looking no further than is needed.

    A file that can't be read is of the hours of its time in ``zone``.
    """
    held: set[str] = set()
    wanted = [_unix(name) for name in names]
    for entry in dlq.every():
        opened = entry.opened
        if opened and entry.events and any(abs(opened - at) < _FAR_SECONDS for at in wanted):
            beginning = _of_file(entry, opened, zone)
            held |= {name for name in names if beginning and name.startswith(beginning)}
            if held == names:
                break
    return held


def _unix(name: str) -> float:
    try:
        return datetime.strptime(name[:13], "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def of_journals(root: str, names: set[str]) -> Iterator[str]:
    """Yield the hours of journals; of one that does not tell, all of ``names``."""
    place = os.path.join(root, journal.DIRECTORY)
    for stream in directory_lock.streams(place):
        for path in directory_lock.journals(os.path.join(place, stream)):
            try:
                header = journal_file.read_header(path)
            except FileNotFoundError:
                continue  # its events are in the DLQ by now, or stored
            except (OSError, LaterVersion):
                header = None
            except NotOurs:
                continue
            if header:
                yield name_of(header.bucket, header.key)
            else:
                yield from names


def _of_file(entry: Entry, opened: int, zone: ZoneInfo) -> str:
    """Return what the names of the hours of a file in the DLQ begin with; empty if it has none."""
    try:
        about = entry.read_header()
        return name_of(about["bucket"], about["key"])
    except DiskError as exc:
        if exc.errno == errno.ENOENT:
            return ""  # it is stored by now, or met again further on
    except Unreadable as exc:
        if isinstance(exc, NotOurs) and not isinstance(exc, LaterVersion):
            return ""
    return name_of_partition(ids.partition(opened, zone))
