"""The least that an event stored as JSON costs: parse, write, compress, in a plain loop.

``python -m bench.loop FILE SECONDS`` works on requests in the format of
``traffic.write`` and prints events and CPU seconds. No sockets, no queue, no
disk, no identity but a counter. What comes out is what estat stores: the same
records, with id and time.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import ujson
from isal import isal_zlib

from bench.errors import BenchError
from estat import identity

_LEVEL = 2
_GZIP = 16 + isal_zlib.MAX_WBITS
#: As the default of BATCH_SIZE: what is compressed in one go.
_BATCH_EVENTS = 5000
_PATIENCE_SECONDS = 30


class Looped(NamedTuple):
    """What one round found."""

    events: int
    cpu_seconds: float
    line_bytes: int
    gzip_bytes: int

    @property
    def cpu_us(self) -> float:
        """CPU of an event."""
        return self.cpu_seconds * 1e6 / self.events


class Content(NamedTuple):
    """A request, as far as it is stored."""

    address: str
    agent: str
    body: bytes


def run(requests_path: str, seconds: int) -> Looped:
    """Run the loop for so many seconds in a process of its own. Raises BenchError."""
    finished = subprocess.run(
        [sys.executable, "-m", "bench.loop", requests_path, str(seconds)],
        capture_output=True, text=True, check=False, timeout=seconds + _PATIENCE_SECONDS,
    )  # fmt: skip
    if finished.returncode:
        raise BenchError(f"the plain loop failed:\n{finished.stderr}")
    return Looped(**json.loads(finished.stdout))


def records(content: Content, stream: str, first: int, now: float) -> list[bytes]:
    """Return the stored lines of one request, the first with this number."""
    return [
        ujson.dumps(
            {
                "id": f"{stream}-{n}",
                "ts": now,
                "ip": content.address,
                "user_agent": content.agent,
                "body": ujson.loads(event),
            },
            ensure_ascii=False, escape_forward_slashes=False, allow_nan=False,
        ).encode() + b"\n"
        for n, event in enumerate(content.body.split(b"\n"), first)
    ]  # fmt: skip


def _work(contents: list[Content], seconds: float) -> Looped:
    stream = identity.new_stream()
    lines: list[bytes] = []
    events = line_bytes = gzip_bytes = 0
    end = time.monotonic() + seconds
    began = time.process_time()
    # whole passes over whole batches: all that was parsed is compressed too
    while time.monotonic() < end:
        for content in contents:
            lines += records(content, stream, events + 1, round(time.time(), 3))
            events += content.body.count(b"\n") + 1
            if len(lines) >= _BATCH_EVENTS:
                text = b"".join(lines)
                line_bytes += len(text)
                gzip_bytes += len(isal_zlib.compress(text, _LEVEL, _GZIP))
                lines.clear()
    if lines:
        text = b"".join(lines)
        line_bytes += len(text)
        gzip_bytes += len(isal_zlib.compress(text, _LEVEL, _GZIP))
    return Looped(events, time.process_time() - began, line_bytes, gzip_bytes)


def read(path: str) -> list[Content]:
    """Read the requests that ``traffic.write`` wrote."""
    return list(_read(path))


def _read(path: str) -> Iterator[Content]:
    with open(path, "rb") as file:
        while length := file.readline():
            head, _, body = file.read(int(length)).partition(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            yield Content(
                fields[b"X-Forwarded-For"].decode(),
                fields[b"User-Agent"].decode("utf-8", "replace"),
                body,
            )


if __name__ == "__main__":
    print(json.dumps(_work(read(sys.argv[1]), float(sys.argv[2]))._asdict()))
