"""How many examples Hypothesis tries where a test says so itself."""

import hypothesis


def examples(count: int) -> int:
    """Return ``count``, and in the quick tier as small a part of it as its profile says."""
    of_a_hundred: int = hypothesis.settings.default.max_examples
    return count * of_a_hundred // 100
