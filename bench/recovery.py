"""How long the next server takes for what a killed one left, and what it costs.

``recovery`` is about journals: a stream for each worker, full of real events in groups, none
sealed. ``takeover`` is about DLQ files: very many, each with one event.
"""

import contextlib
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator

from bench import BenchError, machine, report, servers, traffic
from bench.contenders import RECOVERY
from bench.servers import Running, Sample
from estat.disk import journal, journal_file
from estat.disk.dlq import PENDING
from estat.disk.dlq_file import file_name, pack
from estat.disk.journal_file import Header
from estat.disk.server_directory import ServerDirectory
from estat.disk.slots import slot_of
from estat.events import ids, stored_line
from estat.events.batch import Batch, crc32_of
from estat.events.gzip import gzip

_BATCH_BYTES = 8 * 1024 * 1024
_STREAMS = 2
_GROUP_EVENTS = 30

_SLOTS = 48
_SLOT_SECONDS = 3600

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 300


def run(directory: str, options: Namespace) -> None:
    """Recover the journals of a killed server, until they are stored."""
    mebibytes = options.mebibytes
    report.progress(f"making {mebibytes:,} MiB of journals")
    with _killed(directory) as (root, bucket):
        files, events = _fill(root, bucket, mebibytes * 1024 * 1024)
    report.progress("starting the server")
    began = time.monotonic()
    with servers.running(RECOVERY, directory) as running:
        rows = [
            ("serves requests", f"{time.monotonic() - began:.1f}", ""),
            _until("every journal is a durable DLQ file", began, running, _adopted(events)),
            _until("every event is stored", began, running, lambda found: not found.dlq_files),
        ]
    report.describe(
        directory,
        f"Recovery: {files} journals of {mebibytes:,} MiB and {events:,} events, one worker; "
        "seconds and CPU from the start of the server",
    )
    report.table("until | s | CPU s", rows)


def takeover(directory: str, options: Namespace) -> None:
    """Take over the DLQ files of a killed server, until the first is stored."""
    files = options.files
    report.progress(f"making {files:,} DLQ files")
    with _killed(directory) as (root, bucket):
        _queue(root, bucket, files)
    report.progress("starting the server")
    began = time.monotonic()
    with servers.running(RECOVERY, directory) as running:
        rows = [
            ("serves requests", f"{time.monotonic() - began:.1f}", ""),
            _until("every file is counted", began, running, _adopted(files)),
            _until("the first is stored", began, running, lambda found: found.stored > 0),
        ]
    report.describe(
        directory,
        f"Takeover: {files:,} DLQ files in {_SLOTS} slots, one worker; seconds and CPU from the "
        "start of the next server",
    )
    report.table("until | s | CPU s", rows)


@contextlib.contextmanager
def _killed(directory: str) -> Iterator[tuple[str, str]]:
    """Have a server's directory, and the bucket that it sends to, and die without a release."""
    own = ServerDirectory.make(os.path.join(directory, "dlq"))
    yield own.path, f"file:{directory}/bucket"
    own.close()


def _queue(root: str, bucket: str, files: int) -> None:
    """Write DLQ files, in turn into each of some slots."""
    now, stream = time.time(), ids.new_stream()
    opened = [now - _SLOT_SECONDS * number for number in range(_SLOTS)]
    slots = [os.path.join(root, PENDING, slot_of(at)) for at in opened]
    for slot in slots:
        os.mkdir(slot)
    for number in range(1, files + 1):
        at = opened[number % _SLOTS]
        key = ids.object_key("raw", "dt=2025-11-13/hr=07", at, "bench", stream, number)
        payload = gzip(b'{"id":"%b-%d"}\n' % (stream.encode(), number))
        what = (bucket, key, ids.stem(key), stream, number, number, 1, payload, crc32_of(payload))
        batch = Batch(*what, at)
        with open(os.path.join(slots[number % _SLOTS], file_name(batch)), "wb") as file:
            file.writelines(pack(batch, "put_failed", ""))


def _fill(server: str, bucket: str, size_bytes: int) -> tuple[int, int]:
    """Write journals; return the number of files and of events."""
    root = os.path.join(server, journal.DIRECTORY)
    events = made = files = 0
    hits = traffic.hits()
    origins = [
        stored_line.origin(hit.address.decode(), hit.agent.decode("latin-1")) for hit in hits
    ]
    streams = [ids.new_stream() for _ in range(_STREAMS)]
    numbers = dict.fromkeys(streams, 0)
    for stream in streams:
        os.makedirs(os.path.join(root, stream))
    while made < size_bytes:
        stream = streams[files % _STREAMS]
        files += 1
        now = time.time()
        key = ids.object_key("raw", "dt=2025-11-13/hr=07", now, "bench", stream, files)
        header = Header(bucket, key, ids.stem(key), stream, numbers[stream] + 1, now)
        path = os.path.join(root, stream, f"{files:06d}{journal_file.SUFFIX}")
        with open(path, "wb") as file:
            file.write(journal_file.pack_header(header))
            while file.tell() < _BATCH_BYTES:
                requests = []
                for _ in range(_GROUP_EVENTS):
                    at = events % len(hits)
                    events += 1
                    requests.append((origins[at], [hits[at].event]))
                lines = stored_line.stamped(stream, numbers[stream] + 1, now, requests)
                numbers[stream] += _GROUP_EVENTS
                file.write(journal_file.pack_group(lines))
            made += file.tell()
    return files, events


def _adopted(events: int) -> Callable[[Sample], bool]:
    return lambda found: found.adopted >= events


def _until(
    what: str, began: float, running: Running, condition: Callable[[Sample], bool]
) -> tuple[str, str, str]:
    """Return a row about when ``condition`` held. Raises BenchError."""
    while not condition(servers.sample(running.port)):
        if time.monotonic() - began > _PATIENCE_SECONDS:
            raise BenchError(f"{what}: not within {_PATIENCE_SECONDS} s")
        time.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - began
    return what, f"{seconds:.1f}", f"{machine.cpu_seconds(running.pid):.1f}"
