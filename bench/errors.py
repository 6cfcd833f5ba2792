"""The one error of the benchmark."""


class BenchError(Exception):
    """A run can't go on; the message is for the person who started it."""
