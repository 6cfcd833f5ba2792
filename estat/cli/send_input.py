"""Reads a file as the requests to post: a stream of lines, events, requests.

One line is in memory at a time, and one batch. A line that can't be an event is
counted with its number, a blank one is none. JSON is passed on as it is: the
server is the judge of it.
"""

import contextlib
import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedIOBase, BufferedReader
from itertools import islice
from typing import NamedTuple, Self

import estat
from estat.cli import combined_log
from estat.cli.http_post import Request
from estat.cli.send_tally import Tally

_GZIP_MAGIC = b"\x1f\x8b"

#: The longest line that is read: the largest MAX_BODY_SIZE that a server can be set to.
_MAX_LINE_BYTES = 16 * 1024 * 1024

#: A batch is closed before it grows beyond this, a server's default MAX_BATCH_BODY_SIZE.
_MAX_BATCH_BYTES = 1024 * 1024

_JSON = ("Content-Type", b"application/json")
_NDJSON = ("Content-Type", b"application/x-ndjson")
_OWN_AGENT = ("User-Agent", f"estat-send/{estat.__version__}".encode())


class InputError(Exception):
    """The file can't be read, or not to its end."""


class _Event(NamedTuple):
    """An event's JSON, and the headers that its request must carry."""

    body: bytes
    headers: tuple[tuple[str, bytes], ...]


class Input:
    """A file of events, plain or gzip by its first bytes; ``-`` is standard input.

    A context manager. Raises InputError here and while it is read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._files = contextlib.ExitStack()
        try:
            self._raw = self._files.enter_context(_open(path))
            zipped = self._raw.peek(2)[:2] == _GZIP_MAGIC
        except OSError as exc:
            self._files.close()
            raise self._error(exc) from exc
        self._file: BufferedIOBase = self._raw
        if zipped:
            self._file = self._files.enter_context(gzip.GzipFile(fileobj=self._raw))
        status = os.fstat(self._raw.fileno())
        self.size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._files.close()

    @property
    def position_bytes(self) -> int:
        """How much of ``size_bytes`` is read, before inflating; 0 if there is no size."""
        if self.size_bytes is None:
            return 0
        return os.lseek(self._raw.fileno(), 0, os.SEEK_CUR)

    def requests(
        self, tally: Tally, combined: bool, batch_events: int, limit_events: int | None
    ) -> Iterator[Request]:
        """Yield the requests that carry the file's events, ``limit_events`` at most."""
        lines = self._lines(tally)
        events = islice((_hits if combined else _objects)(lines, tally), limit_events)
        if batch_events > 1:
            yield from _batches(events, batch_events)
            return
        for event in events:
            yield Request(event.body, (_JSON, *event.headers), 1)

    def _lines(self, tally: Tally) -> Iterator[tuple[int, bytes]]:
        """Yield each line that isn't blank, with its number from 1, without its line end."""
        number = 0
        while line := self._readline():
            number += 1
            if len(line) > _MAX_LINE_BYTES:
                tally.add_unreadable(number)
                while line and not line.endswith(b"\n"):
                    line = self._readline()
            elif not line.isspace():
                yield number, line.rstrip(b"\r\n")

    def _readline(self) -> bytes:
        try:
            return self._file.readline(_MAX_LINE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as exc:
            raise self._error(exc) from exc

    def _error(self, exc: Exception) -> InputError:
        cause = exc.strerror if isinstance(exc, OSError) else None
        return InputError(f"cannot read {self._path}: {cause or exc}")


def _open(path: str) -> BufferedReader:
    if path == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return open(path, "rb")


def _objects(lines: Iterable[tuple[int, bytes]], tally: Tally) -> Iterator[_Event]:
    for number, line in lines:
        if line.lstrip().startswith(b"["):
            # the one kind of JSON that the server would take for another number of events
            tally.add_unreadable(number)
        else:
            yield _Event(line.strip(), (_OWN_AGENT,))


def _hits(lines: Iterable[tuple[int, bytes]], tally: Tally) -> Iterator[_Event]:
    for number, line in lines:
        try:
            hit = combined_log.parse(line)
        except ValueError:
            tally.add_unreadable(number)
            continue
        headers = (("User-Agent", hit.agent), ("X-Forwarded-For", hit.address))
        yield _Event(hit.event, tuple((name, value) for name, value in headers if value))


def _batches(events: Iterable[_Event], batch_events: int) -> Iterator[Request]:
    """Join consecutive events whose requests would have the same headers."""
    bodies: list[bytes] = []
    size = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    try:
        for event in events:
            full = len(bodies) == batch_events or size + len(event.body) + 1 > _MAX_BATCH_BYTES
            if bodies and (full or event.headers != headers):
                yield _batch(bodies, headers)
                bodies, size = [], 0
            headers = event.headers
            bodies.append(event.body)
            size += len(event.body) + 1
    except InputError:
        if bodies:
            yield _batch(bodies, headers)  # these were read, so they are sent
        raise
    if bodies:
        yield _batch(bodies, headers)


def _batch(bodies: list[bytes], headers: tuple[tuple[str, bytes], ...]) -> Request:
    return Request(b"\n".join(bodies) + b"\n", (_NDJSON, *headers), len(bodies))
