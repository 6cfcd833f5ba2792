"""The upper bound of a worker's memory: the one line of docs/tuning.md, in bytes."""

from estat.settings import Settings

# Python objects of a body, in its sizes. docs/tuning.md counts 64, for bodies that are made to
# hurt; the benchmark's are not.
_PARSED = 10


def worker_bytes(
    settings: Settings, base: float, packed: float, requests: int, body: float
) -> float:
    """Return the bound for one worker.

    ``base`` is an idle worker's memory, ``packed`` the size of a compressed batch,
    ``requests`` how many are being read or not answered yet, and ``body`` the size
    of the largest of them: what MAX_BATCH_BODY_SIZE would be if none were larger.
    """
    lines = max(settings.batch_bytes, body)
    copies = 5 if settings.durability == "memory" else 7
    packed_copies = settings.upload_queue + settings.upload_concurrency + 2 + 8
    return (
        base
        + 2 * settings.queue_bytes
        + copies * lines
        + packed_copies * packed
        + (2 * requests + _PARSED) * body
    )
