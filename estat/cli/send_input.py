"""Reads a file as the requests to post: a stream of lines, events, requests.

One line is in memory at a time, and one batch. A blank line is skipped; a line that can't
be an event is counted with its number. JSON is passed on as it is: the server judges it.
"""

import gzip
import sys
import zlib
from collections.abc import Iterator
from io import BufferedIOBase, BufferedReader

import estat
from estat.cli import combined_log
from estat.cli.output import CommandError
from estat.cli.send_tally import Request, Tally
from estat.events.gzip import is_gzip

#: The longest line that is read: the largest MAX_BODY_SIZE that a server can be set to.
_MAX_LINE_BYTES = 16 * 1024 * 1024

#: A batch is closed before it grows beyond this, a server's default MAX_BATCH_BODY_SIZE.
_MAX_BATCH_BYTES = 1024 * 1024

_OWN_AGENT = f"estat-send/{estat.__version__}".encode()


def open_file(path: str) -> BufferedReader:
    """Open a file of events; ``-`` is standard input. Raises CommandError."""
    try:
        return open(sys.stdin.fileno() if path == "-" else path, "rb", closefd=path != "-")
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def events(file: BufferedReader, path: str, combined: bool, tally: Tally) -> Iterator[Request]:
    """Yield a request for each event; count lines that are no event.

    The file is plain or gzip, by its first bytes; ``path`` is for messages. Where it can't be
    read further, it ends, and ``tally`` has the reason.
    """
    event_of = _hit if combined else _object
    for number, line in enumerate(_lines(file, path, tally), 1):
        if not line.isspace():
            try:
                yield event_of(line.rstrip(b"\r\n"), number)
            except ValueError:
                tally.add_unreadable(number)


def _lines(file: BufferedReader, path: str, tally: Tally) -> Iterator[bytes]:
    try:
        zipped = is_gzip(file.peek(2))
        lines: BufferedIOBase = gzip.GzipFile(fileobj=file) if zipped else file
        while line := lines.readline(_MAX_LINE_BYTES + 1):
            if len(line) > _MAX_LINE_BYTES:
                raise EOFError("a line is longer than 16 MiB")
            yield line
    except (OSError, EOFError, zlib.error) as exc:
        tally.broken_off = _unreadable(path, exc)


def _unreadable(path: str, exc: Exception) -> CommandError:
    """Return the error that says why a file can't be read."""
    cause = exc.strerror if isinstance(exc, OSError) else None
    return CommandError(f"cannot read {path}: {cause or exc}")


def _object(line: bytes, number: int) -> Request:
    """Return the request for a line of JSON. Raises ValueError if it is an array."""
    if line.lstrip().startswith(b"["):
        raise ValueError("the server would take an array for several events")
    return Request(line.strip(), {"User-Agent": _OWN_AGENT}, [number])


def _hit(line: bytes, number: int) -> Request:
    """Return the request for a line of an access log. Raises ValueError if it is no hit."""
    hit = combined_log.hit_of(line)
    headers = {"User-Agent": hit.agent, "X-Forwarded-For": hit.address}
    return Request(hit.event, {name: value for name, value in headers.items() if value}, [number])


def batches(events: Iterator[Request], batch_events: int) -> Iterator[Request]:
    """Join consecutive events whose requests have the same headers, so many at most."""
    batch: list[Request] = []
    size = 0
    lines = batch_events > 1
    for event in events:
        size += len(event.body) + 1
        if batch and (size > _MAX_BATCH_BYTES or event.headers != batch[0].headers):
            yield _joined(batch, lines=lines)
            batch, size = [], len(event.body) + 1
        batch.append(event)
        if len(batch) == batch_events:
            yield _joined(batch, lines=lines)
            batch, size = [], 0
    if batch:
        yield _joined(batch, lines=lines)


def _joined(batch: list[Request], *, lines: bool) -> Request:
    """Return one request for several events; without ``lines`` there is only one."""
    body = b"\n".join(event.body for event in batch) + b"\n" * lines
    kind = b"application/x-ndjson" if lines else b"application/json"
    numbers = [number for event in batch for number in event.lines]
    return Request(body, {"Content-Type": kind, **batch[0].headers}, numbers)
