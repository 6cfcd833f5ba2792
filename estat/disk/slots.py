"""A slot: the hour in whose directory a DLQ file lies, and whether that is to be retried.

    2026-11-23T01     the hour (UTC) in which its files came there
    2026-11-23T02+    put off: not retried before that hour
    ….<n>             came from a dead server's directory

Rules without I/O. A clock may have stepped since a slot was named.
"""

import time

#: Length of a slot.
SLOT_SECONDS = 3600
_PUT_OFF = "+"

#: An instant by which every file is due, also one that was put off.
EVER = 1e11


def slot_of(unix_seconds: float) -> str:
    """Return the slot of an instant; slots sort by time."""
    return time.strftime("%Y-%m-%dT%H", time.gmtime(unix_seconds))


def later_slot(unix_seconds: float) -> str:
    """Return the slot of a file that is put off at an instant: the next hour."""
    return slot_of(unix_seconds + SLOT_SECONDS) + _PUT_OFF


def is_due(slot: str, unix_seconds: float) -> bool:
    """Tell whether a slot's files are to be retried by then.

    Only what was put off is ever not due, whatever a clock said that has stepped meanwhile. An
    hour beyond the next one does not count: nothing is put off for longer, so the clock was ahead.
    """
    hour, put_off, _ = slot.partition(_PUT_OFF)
    soon = slot_of(unix_seconds), slot_of(unix_seconds + SLOT_SECONDS)
    return not put_off or not soon[0] < hour <= soon[1]
