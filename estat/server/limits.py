"""What the host allows this server: how many connections fit, and what is too low.

If the server reaches a limit while it works, that looks like something else: a disk that fails, a
worker that ends. So the start names each limit that is too low, and what would be enough.
"""

import math
import os
import resource
from collections.abc import Iterator

from estat.config.settings import Settings

#: Connections that one worker holds at a time, where the limit of open files allows them.
_MAX_CONNECTIONS = 4096

#: Files of a worker beside its connections: uploads, DLQ files, journals, libraries. Half of a low
#: limit is for them, but not fewer than the least, and two for each upload at a time.
_OTHER_FILES, _LEAST_OTHER_FILES = 200, 36

#: Files of the arbiter; and one for each worker, of which a reload has twice as many.
_ARBITER_FILES = 16

#: Threads of a worker, as docs/architecture.md lists them.
_THREADS = 32


def connections(settings: Settings) -> int:
    """Raise the limit of open files as far as allowed; return how many connections fit into it.

    0 or less where none does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return fitting(hard, settings)


def fitting(open_files: int, settings: Settings) -> int:
    """Return how many connections fit into a limit of open files."""
    least = _LEAST_OTHER_FILES + 2 * settings.upload_concurrency
    others = max(least, min(_OTHER_FILES, open_files // 2))
    return min(_MAX_CONNECTIONS, open_files - others)


def too_low(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each limit of this process that is too low for the server."""
    files = _limit(resource.RLIMIT_NOFILE)
    fit, workers = connections(settings), settings.web_concurrency
    enough = _MAX_CONNECTIONS + _OTHER_FILES
    if fit < _MAX_CONNECTIONS:
        yield (
            f"open files are limited to {files} (ulimit -n): a worker holds {fit} connections at a "
            f"time; {enough} are enough for {_MAX_CONNECTIONS}"
        )
    if files < _ARBITER_FILES + 2 * workers:
        yield (
            f"open files are limited to {files} (ulimit -n), too few for {workers} workers and a "
            f"reload; {enough} are enough"
        )
    threads = 2 + workers * _THREADS
    if os.geteuid() and _limit(resource.RLIMIT_NPROC) < threads:  # it does not bind root
        yield (
            f"processes and threads of this user are limited to {_limit(resource.RLIMIT_NPROC)} "
            f"(ulimit -u); this server alone may need {threads}"
        )
    size = 2 * settings.batch_bytes
    if _limit(resource.RLIMIT_FSIZE) < size:
        yield (
            f"the size of a file is limited to {_limit(resource.RLIMIT_FSIZE)} bytes (ulimit -f); "
            f"the journal of a batch may need {size}, and events are refused at the limit"
        )


def _limit(number: int) -> float:
    soft, _ = resource.getrlimit(number)
    return math.inf if soft == resource.RLIM_INFINITY else soft
