"""Waiting for a condition, with a deadline: the only way in which tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

_POLL_SECONDS = 0.03


def eventually(
    condition: Callable[[], T], deadline_seconds: float, what: str, *, last_words: object = ""
) -> T:
    """Poll ``condition`` until it is true and return it; fail the test at the deadline.

    An AssertionError or OSError of the condition counts as "not yet".
    ``last_words`` is called, if it can be, for what the failure message adds.
    """
    until = time.monotonic() + deadline_seconds
    seen: object = None
    while True:
        try:
            value = condition()
        except (AssertionError, OSError) as exc:
            seen = exc
        else:
            seen = value
            if value:
                return value
        if time.monotonic() >= until:
            break
        time.sleep(_POLL_SECONDS)
    words = last_words() if callable(last_words) else last_words
    pytest.fail(f"not within {deadline_seconds:g}s: {what}; last seen: {seen!r}\n{words}")
