"""What the server counts.

Every worker writes its own row of the shared page; a scrape adds the rows up,
whichever worker answers it. Nothing is published late, so a worker that was
killed has left its numbers behind, and the next worker in its slot counts on.

This module declares the cells (name, help and place of each, once). What the terms of
the accounting mean, and which of them change together, is ``ledger``'s; how /metrics
tells them is ``exposition``'s.
"""

from bisect import bisect_left
from collections.abc import Iterable
from functools import partial
from itertools import count
from typing import Literal, NamedTuple

from estat.accounting.shared_memory import Row, SharedPage
from estat.config.parsers import MAX_WRITE_KEYS
from estat.errors import REFUSALS

#: What a cell holds. /metrics shows those that have a help text.
#:
#:     counter    only grows, and outlives its process
#:     gauge      of a living process, zeroed when that is gone
#:     running    shown as a gauge; signed changes, for one worker adds and another takes away
Kind = Literal["counter", "gauge", "running"]


class Cell(NamedTuple):
    """One number of a row: a counter, a gauge or one label value of either."""

    name: str
    help: str
    kind: Kind
    labels: dict[str, str]


class Histogram(NamedTuple):
    """A histogram's cells: one for each bucket (the last is +Inf), then the sum."""

    name: str
    help: str
    at: int
    bounds: tuple[float, ...]
    scale: int  # cells hold integers: the sum is stored as value * scale


#: By their places in a row.
CELLS: dict[int, Cell] = {}
HISTOGRAMS: list[Histogram] = []
_places = count(1)  # cell 0 is the row's sequence


def _cell(kind: Kind, name: str, text: str = "", **labels: str) -> int:
    """Declare a cell; return its place."""
    at = next(_places)
    CELLS[at] = Cell(name, text, kind, labels)
    return at


_counter, _gauge = partial(_cell, "counter"), partial(_cell, "gauge")


def _cells(kind: Kind, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, int]:
    """Declare a cell for each value of a label; return their places."""
    return {value: _cell(kind, name, text, **{label: value}) for value in values}


_counters, _gauges = partial(_cells, "counter"), partial(_cells, "gauge")


def _histogram(name: str, text: str, bounds: tuple[float, ...], scale: int = 1) -> Histogram:
    at, *_ = [next(_places) for _ in range(len(bounds) + 2)]
    HISTOGRAMS.append(Histogram(name, text, at, bounds, scale))
    return HISTOGRAMS[-1]


_FAST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SLOW_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LAG_SECONDS = (0.1, 0.5, 1, 5, 10, 30, 60, 120, 180, 300, 600, 1800, 3600, 21600, 86400)
_EVENTS = (1, 10, 50, 100, 500, 1000, 2500, 5000, 10000, 50000, 100000)
_BYTES = (1024, 4096, 16384, 65536, 262144, 1048576, 2097152, 4194304, 8388608, 33554432)
_MICRO = 1_000_000
_LARGEST = 2**63 - 1  # of a cell

REQUESTS = _counter("http_requests_total", "Requests to /collect, by POST or GET.")
REQUESTS_ACCEPTED = _counter(
    "http_requests_accepted_total", "Requests to /collect whose events were accepted."
)
REQUESTS_QUEUE_FULL = _counter(
    "http_requests_rejected_queue_full_total", "Requests refused because the queue was full."
)
REQUESTS_REJECTED = _counters(
    "http_requests_rejected_total",
    "Requests to /collect refused, by reason; malformed: any that gunicorn's parser refuses.",
    "reason",
    (*REFUSALS, "malformed"),
)
REQUESTS_MALFORMED = REQUESTS_REJECTED["malformed"]
EVENTS_REJECTED = _counter(
    "events_rejected_total", "Events refused by themselves inside requests that were accepted."
)
REJECTED_KEPT = _counter(
    "rejected_kept_total", "Refused requests and events that are kept under REJECTED_PREFIX."
)
REJECTED_NOT_KEPT = _counters(
    "rejected_not_kept_total",
    "Refused requests and events that could not be kept under REJECTED_PREFIX, by reason.",
    "reason",
    ("limit", "store"),
)

#: Shown once a key has its cell.
_BY_KEY = "events_accepted_by_key_total"
_KEYS = [_counter(_BY_KEY) for _ in range(2 * MAX_WRITE_KEYS)]

ACCEPTED = _counter("events_accepted_total", "Events answered with 2xx.")
ANSWERS_KEPT = _counters(
    "answers_kept_total",
    "Answers with DURABILITY=stored, by where the events were kept.",
    "where",
    ("store", "disk"),
)
ADOPTED = _counter("events_adopted_total", "Events found on disk from a previous run.")
STORED = _counter("s3_events_stored_total", "Events stored in S3, replayed ones included.")
HANDED_OVER = _counter("events_handed_over_total", "Events handed over to FALLBACK_BUCKET.")
PENDING = _gauge("events_pending", "Events accepted, and neither stored nor in the DLQ yet.")
DLQ_EVENTS = _cell("running", "dlq_events_current", "Events in the DLQ.")
_SET_ASIDE = "dlq_events_set_aside"
_WHY_SET_ASIDE = "Events on this disk that are known and not ours to send, by reason."
#: What is set aside stays where it is, so each process that becomes leader finds it again.
SET_ASIDE = _gauges(_SET_ASIDE, _WHY_SET_ASIDE, "reason", ("not_ours", "later_version"))
#: Links and unknown files may hold events that nobody can count, so these are files.
FILES_ASIDE = _gauges(
    "dlq_files_set_aside",
    "Files and directories in DLQ_DIR that stay as they are, by reason.",
    "reason",
    (*SET_ASIDE, "not_followed", "unknown"),
)
DIRECTORY_LOST = _cell("running", _SET_ASIDE, _WHY_SET_ASIDE, reason="directory_lost")
DROPPED = _counters(
    "dlq_events_dropped_total",
    "Events that left the DLQ unstored, by the operator's policy.",
    "reason",
    ("overflow", "unreadable"),
)

PUT_ERRORS = _counter("s3_put_errors_total", "Failed attempts to store an object.")
DLQ_ENQUEUED = _counter("dlq_events_enqueued_total", "Events written to the DLQ.")
DLQ_REUPLOADED = _counter("dlq_events_reuploaded_total", "Events stored in S3 from the DLQ.")
DLQ_FILES = _cell("running", "dlq_files_current", "Files in the DLQ.")
DLQ_BYTES = _cell("running", "dlq_size_bytes", "Size of the DLQ.")
DLQ_EXPIRED = _counter("dlq_files_expired_total", "DLQ files that passed DLQ_MAX_AGE.")
DLQ_QUARANTINED = _counter("dlq_files_quarantined_total", "DLQ files found unreadable.")
BREAKER_OPEN = _gauge("breaker_open", "Workers that upload nothing because the store is down.")
QUEUE_EVENTS = _gauge("queue_events", "Events waiting in the queue.")
QUEUE_BYTES = _gauge("queue_bytes", "Bytes of finished lines waiting in the queue.")

JOURNAL_BYTES = _gauge("journal_size_bytes", "Size of the journals of events not stored yet.")
IN_DOUBT = _counter(
    "events_in_doubt_total",
    "Events refused after a failed write that could not be undone: a crash may bring them back.",
)

LOG_DROPPED = _counter(
    "log_lines_dropped_total", "Log lines dropped because nobody read them in time."
)

#: Pending events of dead processes, in signed changes; shown as part of PENDING.
ORPHANED = _cell("running", "events_orphaned")
#: Of the events that are set aside, those in journals, which are no DLQ files.
SET_ASIDE_JOURNALS = _gauge("journal_events_set_aside")
#: DLQ files that this process is writing or removing: what is counted may not be there yet.
CHANGING = _gauge("dlq_files_changing")
#: How many workers have booted in this slot.
BOOTS = _counter("workers_booted")
#: Bytes that this worker would write to the DLQ if every upload failed from now on.
EXPOSED_BYTES = _gauge("exposed_bytes")
#: Bytes that other servers have in DLQ_DIR, as the leader last saw them.
OTHERS_BYTES = _gauge("others_bytes")
#: DLQ files that this worker would write then.
EXPOSED_FILES = _gauge("exposed_files")
#: The oldest hour of which this worker has a batch in memory, as ``ids.Key`` numbers them, and
#: whether it may still begin another batch.
OLDEST_HOUR = _gauge("oldest_hour")
BEGINS_BATCHES = _gauge("begins_batches")
#: When the oldest batch in the DLQ was opened, in unix seconds; written by the replayer.
DLQ_OLDEST = _gauge("dlq_oldest_unix")

REQUEST_SECONDS = _histogram(
    "http_request_seconds", "Time to accept a request to /collect.", _FAST_SECONDS, _MICRO
)
COMMIT_SECONDS = _histogram(
    "commit_seconds", "Time to append a group of requests to the journal.", _FAST_SECONDS, _MICRO
)
ENCODE_SECONDS = _histogram(
    "encode_seconds", "Time to compress a batch, all its pieces.", _SLOW_SECONDS, _MICRO
)
PUT_SECONDS = _histogram(
    "s3_put_seconds", "Time of one attempt to store an object.", _SLOW_SECONDS, _MICRO
)
BATCH_EVENTS = _histogram("batch_events", "Events in a batch.", _EVENTS)
BATCH_BYTES = _histogram("batch_bytes", "Compressed size of a batch.", _BYTES)
LAG_SECONDS = _histogram(
    # in whole seconds: each event adds its lag, and an old DLQ has millions of them
    "event_store_lag_seconds",
    "Time from accepting an event to storing it.",
    _LAG_SECONDS,
)

#: Cells in a row.
COLUMNS = next(_places)

_cells_of_keys: dict[str, int] = {}

_OF_LIVING = [at for at, cell in CELLS.items() if cell.kind == "gauge"]


class Metrics:
    """Writes the counts of one process to its row."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._cells = row.cells

    def count(self, index: int, n: int = 1) -> None:
        """Add ``n`` to a counter."""
        self._cells[index] += n

    def set(self, index: int, value: int) -> None:
        """Set a gauge."""
        self._cells[index] = value

    def observe(self, histogram: Histogram, value: float, weight: int = 1) -> None:
        """Count ``value``, in the histogram's unit, ``weight`` times."""
        cells = self._cells
        at = histogram.at
        cells[at + bisect_left(histogram.bounds, value)] += weight
        total = at + len(histogram.bounds) + 1
        cells[total] = min(cells[total] + round(value * histogram.scale) * weight, _LARGEST)


def forget_process(row: Row) -> None:
    """Zero what only a living process has: its gauges. Its counters stay."""
    row.heal()
    row.change({index: -row.cells[index] for index in _OF_LIVING})


def name_keys(names: Iterable[str]) -> None:
    """Give each name of a write key its counter, for the life of the server.

    Called before workers fork, again on a reload: a counter never changes its name. When so
    many names have come and gone that none is left, new ones share the last, ``(others)``.
    """
    for name in names:
        if name not in _cells_of_keys:
            at = _KEYS[min(len(_cells_of_keys), len(_KEYS) - 1)]
            _cells_of_keys[name] = at
            shown = name if at != _KEYS[-1] else "(others)"
            text = "Events answered with 2xx, by the name of the write key."
            CELLS[at] = Cell(_BY_KEY, text, "counter", {"key": shown})


def accepted_by_key(name: str) -> int:
    """Return the counter of a write key's name, which ``name_keys`` knows."""
    return _cells_of_keys[name]


def page() -> SharedPage:
    """Return a new page with room for every metric."""
    return SharedPage(COLUMNS)


def totals(shared: SharedPage) -> list[int]:
    """Return the sums of the cells as /metrics shows them: each event is in one of them.

    Each row is taken whole. The events of dead processes are pending; those that are set aside
    are not in the DLQ, and in journals of other runs they are adopted.
    """
    rows = [row.read() for row in shared.used_rows()]
    found = [sum(column) for column in zip(*rows, strict=True)] or [0] * COLUMNS
    found[PENDING] += found[ORPHANED]
    found[ADOPTED] += found[SET_ASIDE_JOURNALS]
    found[DLQ_EVENTS] += found[SET_ASIDE_JOURNALS] - sum(found[at] for at in SET_ASIDE.values())
    return found
