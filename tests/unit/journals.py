"""Journals for tests: files as a process leaves them, and a process that holds a stream's lock."""

import os
from dataclasses import dataclass, field

from estat.disk.journal_file import Header, pack_group, pack_header, pack_seal
from estat.events import ids
from tests.unit.batches import STREAM, batch, lines


@dataclass
class JournalFile:
    """The bytes of a journal, group by group."""

    seq: int = 1
    first: int = 1
    bucket: str = "events"
    stream: str = STREAM
    opened: float = 1763017800.0
    day: str = "13"
    data: bytes = b""
    header: Header = field(init=False)

    def __post_init__(self) -> None:
        key = batch(seq=self.seq, stream=self.stream, opened=self.opened).key
        key = key.replace("dt=2025-11-13", f"dt=2025-11-{self.day}")
        self.header = Header(self.bucket, key, ids.stem(key), self.stream, self.first, self.opened)
        self.data = pack_header(self.header)

    def group(self, numbers: range | list[int]) -> "JournalFile":
        """Append a group of events."""
        self.data += pack_group(lines(numbers, self.stream).splitlines(keepends=True))
        return self

    def seal(self, events: int) -> "JournalFile":
        self.data += pack_seal(self.header, events)
        return self

    def flip(self, text: bytes) -> "JournalFile":
        """Change one bit of the first place that holds ``text``."""
        at = self.data.index(text)
        self.data = self.data[:at] + bytes([self.data[at] ^ 1]) + self.data[at + 1 :]
        return self

    def write(self, root: str, *, lock: bool = True) -> str:
        """Write it into a DLQ directory and return its path."""
        path = os.path.join(root, "journal", self.stream, f"{self.seq:06d}.journal")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if lock:
            with open(os.path.join(os.path.dirname(path), "lock"), "ab"):
                pass
        with open(path, "wb") as file:
            file.write(self.data)
        return path


def journal(numbers: range | list[int] = range(1, 11), **more: object) -> JournalFile:
    """Return a journal of one group."""
    return JournalFile(first=numbers[0], **more).group(numbers)  # type: ignore[arg-type]
