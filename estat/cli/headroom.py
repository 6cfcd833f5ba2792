"""Sizes and times that are valid, also together, but too small for each other: for ``estat check``.

The sums are those of docs/tuning.md and docs/shutdown.md. They are about the worst case, so
they are warnings: with little load a server may do with less.
"""

import math

from estat.config.settings import Settings
from estat.config.stop_times import stop_times
from estat.disk.dlq_file import OVERHEAD_BYTES

#: Of a batch's lines, what is left when they are compressed, at most as a rule.
_COMPRESSED = 0.25
#: A worker's batches outside of the upload queue and the uploaders: open, waiting, in the sealer.
_UNSENT_BATCHES = 3

_MB = 10**6


def warnings(settings: Settings) -> list[str]:
    """Return a sentence for each thing that is too small."""
    return [text for text in (_of_dlq(settings), _of_stop(settings)) if text]


def needed_bytes(settings: Settings) -> int:
    """Return what DLQ_MAX_SIZE_BYTES must have room for: all that memory and journals can hold."""
    lines = max(settings.batch_bytes, settings.max_batch_body_size)
    sent = settings.upload_queue + settings.upload_concurrency
    batches = _UNSENT_BATCHES + sent
    # the queue twice: as it fills, and what the collector has just taken from it
    exposed = 2 * settings.queue_bytes + _UNSENT_BATCHES * lines
    exposed += math.ceil((sent + 1) * lines * _COMPRESSED)
    journals = batches * lines if settings.durability.journaled else 0
    overhead = (settings.channel_size + batches) * OVERHEAD_BYTES
    return settings.web_concurrency * (exposed + journals + overhead)


def _of_dlq(settings: Settings) -> str:
    needed = needed_bytes(settings)
    if settings.dlq_overflow != "reject" or settings.dlq_max_size_bytes >= needed:
        return ""
    return (
        f"DLQ_MAX_SIZE_BYTES={settings.dlq_max_size_bytes} is below the "
        f"{math.ceil(needed / _MB)}MB that memory and journals can hold: requests get 503 dlq_full "
        "with an empty DLQ, under load, or far below that always; raise it, or lower "
        "WEB_CONCURRENCY, QUEUE_BYTES, BATCH_BYTES or UPLOAD_QUEUE"
    )


def _of_stop(settings: Settings) -> str:
    """Compare a stop's share for uploads with one attempt."""
    times = stop_times(settings)
    uploads = times.uploads - times.requests
    if uploads >= settings.s3_timeout:
        return ""
    return (
        f"SHUTDOWN_TIMEOUT={settings.text('SHUTDOWN_TIMEOUT')} less "
        f"DRAIN_DELAY={settings.text('DRAIN_DELAY')} leaves {uploads:.3g}s for uploads at a stop, "
        f"less than one attempt of S3_TIMEOUT={settings.text('S3_TIMEOUT')}: raise "
        "SHUTDOWN_TIMEOUT, or batches wait in the DLQ for the next start"
    )
