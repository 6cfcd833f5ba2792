"""Reads a file as the requests to post: a stream of lines, events, requests.

One line is in memory at a time, and one batch. A blank line is skipped; a line that can't
be an event is counted with its number. JSON is passed on as it is: the server judges it.
"""

import contextlib
import gzip
import os
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

    A context manager. Raises InputError if the file can't be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._failure: InputError | None = None
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
        #: 0 if it is not known, as of a pipe.
        self.size_bytes = os.fstat(self._raw.fileno()).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._files.close()

    @property
    def position_bytes(self) -> int:
        """How much of ``size_bytes`` is read, before inflating; 0 if the size is not known."""
        return self._raw.tell() if self.size_bytes else 0

    def requests(
        self, tally: Tally, combined: bool, batch_events: int, limit_events: int | None
    ) -> Iterator[Request]:
        """Yield the requests that carry the file's events, ``limit_events`` at most.

        Raises InputError where the file can't be read further, after all that was read.
        """
        events = islice(self._events(tally, combined), limit_events)
        if batch_events > 1:
            yield from _batches(events, batch_events)
        else:
            for event in events:
                yield Request(event.body, (_JSON, *event.headers), 1)
        if self._failure:
            raise self._failure

    def _events(self, tally: Tally, combined: bool) -> Iterator[_Event]:
        event_of = _hit if combined else _object
        for number, line in enumerate(self._lines(), 1):
            if len(line) > _MAX_LINE_BYTES:
                tally.add_unreadable(number)
            elif not line.isspace():
                try:
                    yield event_of(line.rstrip(b"\r\n"))
                except ValueError:
                    tally.add_unreadable(number)

    def _lines(self) -> Iterator[bytes]:
        """Yield each line; of one that is too long, only its beginning."""
        try:
            while line := self._file.readline(_MAX_LINE_BYTES + 1):
                yield line
                while len(line) > _MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = self._file.readline(_MAX_LINE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as exc:
            self._failure = self._error(exc)

    def _error(self, exc: Exception) -> InputError:
        cause = exc.strerror if isinstance(exc, OSError) else None
        return InputError(f"cannot read {self._path}: {cause or exc}")


def _open(path: str) -> BufferedReader:
    if path == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return open(path, "rb")


def _object(line: bytes) -> _Event:
    """Return a line of JSON as an event. Raises ValueError if it is an array."""
    if line.lstrip().startswith(b"["):
        raise ValueError("the server would take an array for several events")
    return _Event(line.strip(), (_OWN_AGENT,))


def _hit(line: bytes) -> _Event:
    """Return a line of an access log as an event. Raises ValueError."""
    hit = combined_log.hit_of(line)
    headers = (("User-Agent", hit.agent), ("X-Forwarded-For", hit.address))
    return _Event(hit.event, tuple((name, value) for name, value in headers if value))


def _batches(events: Iterable[_Event], batch_events: int) -> Iterator[Request]:
    """Join consecutive events whose requests would have the same headers."""
    bodies: list[bytes] = []
    size = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    for event in events:
        full = len(bodies) == batch_events or size + len(event.body) + 1 > _MAX_BATCH_BYTES
        if bodies and (full or event.headers != headers):
            yield _batch(bodies, headers)
            bodies, size = [], 0
        headers = event.headers
        bodies.append(event.body)
        size += len(event.body) + 1
    if bodies:
        yield _batch(bodies, headers)


def _batch(bodies: list[bytes], headers: tuple[tuple[str, bytes], ...]) -> Request:
    return Request(b"\n".join(bodies) + b"\n", (_NDJSON, *headers), len(bodies))
