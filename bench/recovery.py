"""How long it takes to recover the journals of a killed server, and what it costs.

The journals are what a server leaves that was killed with all of them full: a
stream for each of its workers, real events in groups, none sealed.
"""

import os
import time
from argparse import Namespace
from collections.abc import Callable

from bench import BenchError, machine, report, servers, traffic
from bench.contenders import RECOVERY
from estat.disk import journal_file
from estat.disk.journal_file import Header
from estat.events import ids, stored_line

_BATCH_BYTES = 8 * 1024 * 1024
_STREAMS = 2
_GROUP_EVENTS = 30

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 300


def run(directory: str, options: Namespace) -> None:
    """Recover the journals of a killed server, until they are stored."""
    mebibytes = options.mebibytes
    root = os.path.join(directory, "dlq", "journal")
    report.progress(f"making {mebibytes:,} MiB of journals")
    bucket = f"file:{directory}/bucket"
    files, events = _fill(root, bucket, mebibytes * 1024 * 1024)
    report.progress("starting the server")
    began = time.monotonic()
    with servers.running(RECOVERY, directory) as running:
        serves = time.monotonic() - began
        recovered = _await(lambda: not any(os.scandir(root)), began)
        cpu_recovered = machine.cpu_seconds(running.pid)
        stored = _await(lambda: servers.sample(running.port).dlq_files == 0, began)
        cpu_stored = machine.cpu_seconds(running.pid)
    report.describe(
        directory,
        f"Recovery: {files} journals of {mebibytes:,} MiB and {events:,} events, one worker; "
        "seconds and CPU from the start of the server",
    )
    rows = [
        ("serves requests", f"{serves:.1f}", ""),
        ("every journal is a durable DLQ file", f"{recovered:.1f}", f"{cpu_recovered:.1f}"),
        ("every event is stored", f"{stored:.1f}", f"{cpu_stored:.1f}"),
    ]
    report.table("until | s | CPU s", rows)
    print("- Target: none; it grows with the journals")


def _fill(root: str, bucket: str, size_bytes: int) -> tuple[int, int]:
    """Return the number of files and of events."""
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
                rests = []
                for _ in range(_GROUP_EVENTS):
                    at = events % len(hits)
                    events += 1
                    rests.append(b"%b%b}\n" % (origins[at], hits[at].event))
                lines = stored_line.stamped(stream, numbers[stream] + 1, now, rests)
                numbers[stream] += _GROUP_EVENTS
                file.write(journal_file.pack_group(lines))
            made += file.tell()
    return files, events


def _await(condition: Callable[[], bool], began: float) -> float:
    """Return the seconds since ``began`` at which ``condition`` held. Raises BenchError."""
    while not condition():
        if time.monotonic() - began > _PATIENCE_SECONDS:
            raise BenchError(f"not recovered within {_PATIENCE_SECONDS} s")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - began
