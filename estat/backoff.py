"""How long to wait between attempts: exponential, full jitter.

Full jitter spreads the attempts of many workers best; see "Exponential Backoff
and Jitter" on the AWS Architecture Blog.
"""

import random


def full_jitter(attempt: int, base_seconds: float, cap_seconds: float) -> float:
    """Return the seconds to wait after failed attempt number ``attempt`` (from 0)."""
    # the exponent is bounded: a long outage must not compute huge powers
    return random.uniform(0, min(cap_seconds, base_seconds * 2 ** min(attempt, 32)))
