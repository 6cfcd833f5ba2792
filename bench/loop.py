"""The least that an event stored as JSON costs: parse, write, compress, in a plain loop.

``python -m bench.loop FILE SECONDS`` works on requests in the format of
``traffic`` and prints events and CPU seconds. No sockets, no queue, no
disk, no identity but a counter. What comes out is what estat stores: the same
records, with id and time.
"""

import json
import subprocess
import sys
import time
from typing import NamedTuple

import ujson
from isal import isal_zlib

from bench import BenchError, traffic
from estat.events import ids

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
    command = [sys.executable, "-m", "bench.loop", requests_path, str(seconds)]
    patience = seconds + _PATIENCE_SECONDS
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=patience
    )
    if finished.returncode:
        raise BenchError(f"the plain loop failed:\n{finished.stderr}")
    return Looped(**json.loads(finished.stdout))


def records(content: Content, stream: str, first: int, now: float) -> list[bytes]:
    """Return the stored lines of one request, the first with this number."""
    lines = []
    for number, event in enumerate(content.body.split(b"\n"), first):
        record = {
            "id": f"{stream}-{number}",
            "ts": now,
            "ip": content.address,
            "user_agent": content.agent,
            "body": ujson.loads(event),
        }
        line = ujson.dumps(
            record, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False
        )
        lines.append(line.encode() + b"\n")
    return lines


def _work(contents: list[Content], seconds: float) -> Looped:
    stream = ids.new_stream()
    lines: list[bytes] = []
    events = line_bytes = gzip_bytes = 0
    end = time.monotonic() + seconds
    began = time.process_time()
    # whole passes over whole batches: all that was parsed is compressed too
    while time.monotonic() < end:
        for content in contents:
            lines += records(content, stream, events + 1, round(time.time(), 3))
            events += content.body.count(b"\n") + 1
            if len(lines) >= _BATCH_EVENTS or content is contents[-1]:
                text = b"".join(lines)
                line_bytes += len(text)
                gzip_bytes += len(isal_zlib.compress(text, _LEVEL, _GZIP))
                lines.clear()
    return Looped(events, time.process_time() - began, line_bytes, gzip_bytes)


def _content(request: bytes) -> Content:
    head, _, body = request.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    agent = fields[b"User-Agent"].decode("utf-8", "replace")
    return Content(fields[b"X-Forwarded-For"].decode(), agent, body)


if __name__ == "__main__":
    path, seconds = sys.argv[1:]
    print(json.dumps(_work(list(map(_content, traffic.read(path))), float(seconds))._asdict()))
