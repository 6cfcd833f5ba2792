"""What the dashboard shows: for each panel a title, what to do about it, and its expressions.

``$window`` and the other variables are those of ``dashboard``; ``$__rate_interval`` and
``$__range`` are Grafana's. Requests come all the time; batches come at FLUSH_INTERVAL, so
what counts them takes ``$window``.
"""

from typing import NamedTuple

_BLUE, _ORANGE, _RED, _PURPLE, _GREY = "#3274D9", "#FF9830", "#E02F44", "#8F3BB8", "#8E8E8E"

#: What selects the servers, in every expression.
_S = 'job=~"$job", instance=~"$instance"'

_NOW = "$__rate_interval"

#: Refusals that are the server's fault or its limit, not the client's.
_OURS = "queue_full|dlq_full|disk_error|unavailable|internal_error"

_UNACCOUNTED = (
    f"sum by (instance) (events_accepted_total{{{_S}}} + events_adopted_total{{{_S}}})"
    f" - sum by (instance) (s3_events_stored_total{{{_S}}} + events_pending{{{_S}}}"
    f" + dlq_events_current{{{_S}}} + events_handed_over_total{{{_S}}})"
    f" - sum by (instance) (dlq_events_dropped_total{{{_S}}})"
)


class Line(NamedTuple):
    """One expression of a panel; its legend may name labels as ``{{label}}``."""

    expr: str
    legend: str
    color: str | None = None  # None: Grafana chooses, for one line a label value
    dashed: bool = False  # a limit, not a measurement
    filled: bool = False


class Stat(NamedTuple):
    """One number; it turns orange and red from the values in ``alarms`` on."""

    title: str
    todo: str
    runbook: str
    expr: str
    unit: str = "short"
    alarms: tuple[float | None, float] = (None, 1)


class Graph(NamedTuple):
    """Lines over time."""

    title: str
    todo: str
    runbook: str | None
    unit: str
    lines: tuple[Line, ...]
    bars: bool = False
    log: bool = False
    alarm: float | None = None  # a dashed line, once the axis reaches it
    signed: bool = False  # may be below 0


class Row(NamedTuple):
    """A heading, and the panels under it."""

    title: str
    panels: tuple[Stat | Graph, ...]
    collapsed: bool = False


def _sum(metric: str) -> str:
    return f"sum({metric}{{{_S}}})"


def _max(metric: str) -> str:
    return f"max({metric}{{{_S}}})"


def _rate(metric: str, window: str = "$window") -> str:
    return f"sum(rate({metric}{{{_S}}}[{window}]))"


def _quantile(q: float, metric: str, window: str = "$window") -> str:
    return f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{_S}}}[{window}])))"


def _mean(metric: str) -> str:
    return f"{_rate(metric + '_sum')} / {_rate(metric + '_count')}"


ROWS = (
    Row(
        "Is anything lost?",
        (
            Stat(
                "Servers down",
                "Servers that do not answer a scrape. If the process is gone, start it again on "
                "the same disk: it recovers what was not stored.",
                "server-does-not-answer",
                f"sum(1 - up{{{_S}}})",
            ),
            Stat(
                "Unaccounted",
                "Accepted events that are neither stored nor on their way. 0 in every scrape; "
                "with DURABILITY=memory not after a worker was killed. Else find the log lines "
                "that say where they went; the last row says which server.",
                "accounting-mismatch",
                f"sum(abs({_UNACCOUNTED}))",
            ),
            Stat(
                "Dropped",
                "Events that left the DLQ unstored in this time range: by "
                "DLQ_OVERFLOW=drop_oldest, or unreadable. Make room, or look at the disk.",
                "dlq-full",
                f"ceil(sum(increase(dlq_events_dropped_total{{{_S}}}[$__range])))",
            ),
            Stat(
                "Refused by us",
                "Requests refused in this time range for want of room, for a failing disk, while "
                "starting or stopping, or by a defect. The reason is in the next row.",
                "requests-refused",
                f'ceil(sum(increase(http_requests_rejected_total{{{_S}, reason=~"{_OURS}"}}'
                "[$__range])))",
            ),
            Stat(
                "S3 down",
                "How many workers have an open circuit breaker. Events are accepted and go to the "
                "disk: replace nothing. The log line store_down has the error.",
                "s3-down",
                _sum("breaker_open"),
            ),
            Stat(
                "Damaged",
                "Files and ranges of journals set aside as unreadable, and events in doubt after "
                "a failed append, in this time range. After a crash mostly the group that was "
                "being written; else look at the disk.",
                "quarantine",
                f"ceil(sum(increase(dlq_files_quarantined_total{{{_S}}}[$__range]))"
                f" + sum(increase(events_in_doubt_total{{{_S}}}[$__range])))",
            ),
            Stat(
                "Disk in use",
                "DLQ and journals of the fullest server, as a share of DLQ_MAX_SIZE_BYTES (put "
                "yours in at the top). At 100 % requests are refused, or the oldest events "
                "dropped.",
                "dlq-full",
                f"max(dlq_size_bytes{{{_S}}} + journal_size_bytes{{{_S}}}) / $dlq_max_size",
                unit="percentunit",
                alarms=(0.25, 0.5),
            ),
            Stat(
                "Oldest in DLQ",
                "How long the oldest batch has waited on disk. With S3 up it should fall: see "
                "why files stay with `estat dlq ls`.",
                "dlq-growing",
                _max("dlq_oldest_seconds"),
                unit="s",
                alarms=(900, 3600),
            ),
        ),
    ),
    Row(
        "Does it accept?",
        (
            Graph(
                "Requests per second",
                "What reaches the servers, and what became of it. Nothing at all: look at the "
                "balancer. Refused: the next panel says why.",
                "no-traffic",
                "short",
                (
                    Line(_rate("http_requests_total", _NOW), "all", _GREY, filled=True),
                    Line(_rate("http_requests_accepted_total", _NOW), "accepted", _BLUE),
                    Line(_rate("http_requests_rejected_total", _NOW), "refused", _RED),
                ),
            ),
            Graph(
                "Refused per second, by reason",
                "queue_full, dlq_full, disk_error, unavailable and internal_error are the "
                "server's: act. All others are the clients': tell them. «single events» were "
                "invalid inside requests that were accepted.",
                "requests-refused",
                "short",
                (
                    Line(
                        f"sum by (reason) (rate(http_requests_rejected_total{{{_S}}}[{_NOW}])) > 0",
                        "{{reason}}",
                    ),
                    Line(f"{_rate('events_rejected_total', _NOW)} > 0", "single events", _GREY),
                ),
                bars=True,
            ),
            Graph(
                "Time to the 202",
                "From the head of a request to its acceptance, and the part of it that the "
                "journal takes. Both high: the disk is slow. Only the first: the CPU is busy; "
                "compare it with the platform's figures.",
                "queue-full",
                "s",
                (
                    Line(_quantile(0.5, "http_request_seconds", _NOW), "p50", _BLUE),
                    Line(_quantile(0.99, "http_request_seconds", _NOW), "p99", _ORANGE),
                    Line(_quantile(0.99, "commit_seconds", _NOW), "journal p99", _PURPLE),
                ),
                log=True,
            ),
        ),
    ),
    Row(
        "Does it store?",
        (
            Graph(
                "Events per second",
                "The two agree over time. Stored below accepted: S3 fails or is slow, and the "
                "rest waits (next row). Stored above accepted: the DLQ empties.",
                "s3-down",
                "short",
                (
                    Line(_rate("events_accepted_total"), "accepted", _GREY, filled=True),
                    Line(_rate("s3_events_stored_total"), "stored", _BLUE),
                    Line(_rate("dlq_events_reuploaded_total"), "of these from the DLQ", _ORANGE),
                ),
            ),
            Graph(
                "Attempts to store per second",
                "PUTs, and attempts that failed. A batch from the DLQ is looked up before its PUT; "
                "where that fails, it is a failure without a PUT. All fail: S3 is down or refuses; "
                "few: it is slow. While breakers are open there is one attempt now and then.",
                "s3-down",
                "short",
                (
                    Line(_rate("s3_put_seconds_count"), "PUTs", _BLUE),
                    Line(_rate("s3_put_errors_total"), "failed", _RED),
                ),
            ),
            Graph(
                "Time until stored",
                "From the 202 to the object, and the part of it that is one PUT. Normal up to "
                "FLUSH_INTERVAL (put yours in at the top); above it, events wait in the DLQ, or "
                "uploads do not keep up.",
                "dlq-growing",
                "s",
                (
                    Line(_quantile(0.5, "event_store_lag_seconds"), "p50", _BLUE),
                    Line(_quantile(0.99, "event_store_lag_seconds"), "p99", _ORANGE),
                    Line(_quantile(0.99, "s3_put_seconds"), "PUT p99", _PURPLE),
                    Line("vector($flush_interval)", "FLUSH_INTERVAL", _GREY, dashed=True),
                ),
                log=True,
            ),
        ),
    ),
    Row(
        "What waits?",
        (
            Graph(
                "Events waiting",
                "Queue: not answered yet. Pending: in memory and journals. DLQ: on disk, until "
                "S3 takes them. A queue that stays full means too few workers, or a disk that "
                "hangs.",
                "queue-full",
                "short",
                (
                    Line(_sum("queue_events"), "queue", _PURPLE),
                    Line(_sum("events_pending"), "pending", _BLUE),
                    Line(_sum("dlq_events_current"), "DLQ", _ORANGE, filled=True),
                ),
            ),
            Graph(
                "Bytes waiting",
                "The same in bytes: the queue's lines in memory, journals and compressed DLQ "
                "files on disk. Journals that grow while the DLQ does not: neither S3 nor the "
                "DLQ takes batches.",
                "journals-stay",
                "bytes",
                (
                    Line(_sum("queue_bytes"), "queue", _PURPLE),
                    Line(_sum("journal_size_bytes"), "journals", _BLUE),
                    Line(_sum("dlq_size_bytes"), "DLQ", _ORANGE, filled=True),
                ),
            ),
            Graph(
                "Against the limits",
                "The fullest server's disk against DLQ_MAX_SIZE_BYTES, and the oldest batch "
                "against DLQ_MAX_AGE (put yours in at the top). The slope says how long it "
                "lasts.",
                "dlq-full",
                "percentunit",
                (
                    Line(
                        f"max(dlq_size_bytes{{{_S}}} + journal_size_bytes{{{_S}}}) / $dlq_max_size",
                        "disk",
                        _ORANGE,
                        filled=True,
                    ),
                    Line(f"{_max('dlq_oldest_seconds')} / $dlq_max_age", "age", _BLUE),
                ),
                alarm=0.5,
            ),
        ),
    ),
    Row(
        "Dead letter queue",
        (
            Graph(
                "Files",
                "What waits in DLQ_DIR. Falling while the age of the oldest rises: some files "
                "are refused; `estat dlq ls` says why.",
                "dlq-growing",
                "short",
                (Line(_sum("dlq_files_current"), "files", _ORANGE, filled=True),),
            ),
            Graph(
                "Events in and out per second",
                "Written: failed batches, and what dead processes left. Replayed: stored after "
                "all. Adopted: found on disk. Handed over: to FALLBACK_BUCKET, at a stop. "
                "Dropped: gone.",
                "dlq-growing",
                "short",
                (
                    Line(_rate("dlq_events_enqueued_total"), "written", _ORANGE),
                    Line(_rate("dlq_events_reuploaded_total"), "replayed", _BLUE),
                    Line(_rate("events_adopted_total"), "adopted", _PURPLE),
                    Line(_rate("events_handed_over_total"), "handed over", _GREY),
                    Line(_rate("dlq_events_dropped_total"), "dropped", _RED),
                ),
            ),
            Graph(
                "Set aside",
                "Files older than DLQ_MAX_AGE (kept, retried rarely), files and ranges that "
                "can't be read (uploaded under DLQ_PREFIX), and events of appends that could "
                "not be cut off.",
                "quarantine",
                "short",
                (
                    Line(f"sum(increase(dlq_files_expired_total{{{_S}}}[$window]))", "expired"),
                    Line(
                        f"sum(increase(dlq_files_quarantined_total{{{_S}}}[$window]))",
                        "unreadable",
                        _RED,
                    ),
                    Line(
                        f"sum(increase(events_in_doubt_total{{{_S}}}[$window]))",
                        "events in doubt",
                        _PURPLE,
                    ),
                ),
            ),
        ),
        collapsed=True,
    ),
    Row(
        "Batches",
        (
            Graph(
                "Events in a batch",
                "Full batches end at BATCH_SIZE or BATCH_BYTES, others at FLUSH_INTERVAL. Many "
                "small ones make many PUTs: docs/tuning.md.",
                None,
                "short",
                (
                    Line(_mean("batch_events"), "mean", _BLUE),
                    Line(_quantile(0.99, "batch_events"), "p99", _ORANGE),
                ),
            ),
            Graph(
                "Size of a batch",
                "Compressed, as it is stored. Large ones need a longer S3_TIMEOUT: docs/tuning.md.",
                None,
                "bytes",
                (
                    Line(_mean("batch_bytes"), "mean", _BLUE),
                    Line(_quantile(0.99, "batch_bytes"), "p99", _ORANGE),
                ),
            ),
            Graph(
                "Time to compress a batch",
                "All pieces of one batch, in a thread. If it nears the time in which a batch "
                "fills, the queue does too: more workers, or more CPU.",
                "queue-full",
                "s",
                (
                    Line(_quantile(0.5, "encode_seconds"), "p50", _BLUE),
                    Line(_quantile(0.99, "encode_seconds"), "p99", _ORANGE),
                ),
                log=True,
            ),
        ),
        collapsed=True,
    ),
    Row(
        "Server by server",
        (
            Graph(
                "Events accepted per second",
                "One server far below the others: look at its /ready and at the balancer.",
                "no-traffic",
                "short",
                (
                    Line(
                        f"sum by (instance) (rate(events_accepted_total{{{_S}}}[$window]))",
                        "{{instance}}",
                    ),
                ),
            ),
            Graph(
                "Waiting on disk",
                "DLQ and journals. One server alone: its network or its credentials; all of "
                "them: S3.",
                "s3-down",
                "bytes",
                (
                    Line(
                        f"sum by (instance) (dlq_size_bytes{{{_S}}} + journal_size_bytes{{{_S}}})",
                        "{{instance}}",
                    ),
                ),
            ),
            Graph(
                "Unaccounted events",
                "The server to look at when the number at the top is not 0. Below 0: more was "
                "stored than the books know of.",
                "accounting-mismatch",
                "short",
                (Line(_UNACCOUNTED, "{{instance}}"),),
                signed=True,
            ),
        ),
        collapsed=True,
    ),
)

#: Marked on every graph as long as it is above 0.
MARK = "S3 down", f"{_sum('breaker_open')} > 0", _RED
