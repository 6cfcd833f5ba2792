"""The hours that a server has open: in a file for each, what became of its batches.

    hours/<server>[.<n>]/2026-11-27T18-1f2e3d4c      an hour of one bucket and prefix
    ["my-bucket","raw/dt=2026-11-27/hr=18/….jsonl.gz",101,400,"stored"]

A line holds the bucket and key of a batch, its first and last id, and what became of it. The file
is made with the server's first batch of the hour and removed once the hour is closed (see
``pipeline.closing``). ``.<n>`` stands behind a server whose directory was taken over. A file that
is about to be removed is moved to ``<server>.closing`` first: whoever had opened it to write sees
that, and writes its notes once more. A line that can't be read is passed over. All calls block, and
raise DiskError.
"""

import contextlib
import errno
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from estat.disk import directory_lock, dlq_file, files, journal, journal_file
from estat.disk.dlq import DeadLetterQueue, Entry
from estat.errors import LaterVersion, NotOurs, Unreadable
from estat.events import ids
from estat.events.closed_hour import FATES, OPENED, Note

DIRECTORY = "hours"

_NAME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9a-f]{8}")
_APPEND = os.O_WRONLY | os.O_APPEND
_CLOSING = ".closing"
_TRIES = 3

#: A journal's first line is shorter.
_HEADER_BYTES = 16 * 1024

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

    @property
    def is_closing(self) -> bool:
        """Whether nothing is added to it any more."""
        return os.path.dirname(self.path).endswith(_CLOSING)


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
                path = _path(root, name, found)
                with contextlib.suppress(FileNotFoundError):  # the leader has removed something
                    if _append(path, data, files.PRIVATE._replace(top=root)):
                        break
            else:
                raise OSError(errno.ESTALE, f"{name} is removed again and again")


def _path(root: str, name: str, notes: list[Note]) -> str:
    """Return the file for notes: what was taken over belongs to who had the hour open."""
    own = os.path.join(root, DIRECTORY, os.path.basename(root), name)
    if not os.path.lexists(own) and all(note.fate != OPENED for note in notes):
        for file in found_in(root):
            if file.name == name and not file.is_closing:
                return file.path
    return own


def _append(path: str, data: bytes, access: files.Access) -> bool:
    """Write to a file; tell whether it was still there afterwards, or raise FileNotFoundError."""
    directory = os.path.dirname(path)
    try:
        descriptor = files.open_file(path, _APPEND)
        is_new = False
    except FileNotFoundError:
        files.make_directories(directory, access)
        descriptor, is_new = files.open_file(path, _APPEND | os.O_CREAT, access.file), True
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, "short write")
        if is_new:
            os.fsync(descriptor)
            files.sync_directory(directory)
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
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
    """Remove a file that has not grown since it had so many bytes; tell whether it is gone.

    The leader alone calls this.
    """
    directory, path = os.path.dirname(file.path), file.path
    with files.disk_errors("unlink", path), contextlib.suppress(FileNotFoundError):
        if not file.is_closing and os.lstat(path).st_size == size_bytes:
            path = os.path.join(directory + _CLOSING, file.name)
            if os.path.lexists(path):
                return False  # it grew in the last moment, and is closed for itself
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(path), files.PRIVATE.directory)
            os.rename(file.path, path)
        if os.lstat(path).st_size != size_bytes:
            return False
        os.unlink(path)
        files.remove_empty(os.path.dirname(path))
    files.remove_empty(directory)
    return True


def of_files(dlq: DeadLetterQueue, names: set[str], by_time: Callable[[int], str]) -> set[str]:
    """Return those of ``names`` of which the DLQ has events, looking no further than is needed.

    ``by_time`` names the hour of a file that can't be read, by its unix time.
    """
    held: set[str] = set()
    wanted = [_unix(name) for name in names]
    for entry in dlq.every():
        opened = entry.opened
        if opened and entry.events and any(abs(opened - at) < _FAR_SECONDS for at in wanted):
            held |= names & {_of_file(entry, by_time)}
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
                content = journal_file.parse(files.read_beginning(path, _HEADER_BYTES))
            except FileNotFoundError:
                continue  # its events are in the DLQ by now, or stored
            except OSError:
                yield from names
                continue
            if content.header:
                yield name_of(content.header.bucket, content.header.key)
            elif content.not_ours is None or isinstance(content.not_ours, LaterVersion):
                yield from names


def _of_file(entry: Entry, by_time: Callable[[int], str]) -> str:
    """Return the hour of a file in the DLQ."""
    try:
        about = dlq_file.read_header(files.read_beginning(entry.path, dlq_file.HEADER_READ_BYTES))
        dlq_file.check_header(entry.name, about)
        return name_of(about["bucket"], about["key"])
    except FileNotFoundError:
        return ""  # it is stored by now, or met again further on
    except (OSError, Unreadable) as exc:
        if isinstance(exc, NotOurs) and not isinstance(exc, LaterVersion):
            return ""
    return by_time(entry.opened or 0)
