"""Reads a server's figures from /metrics, over one keep-alive connection."""

import http.client
import re
from typing import NamedTuple, Self

from bench.errors import BenchError

_ANSWER_SECONDS = 10.0
_SAMPLE = re.compile(r"^(\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


class Sample(NamedTuple):
    """The server at one moment."""

    accepted: int  # events
    refused: int  # requests
    dlq_files: int
    dlq_bytes: int


class Scraper:
    """A context manager that holds the connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)

    def sample(self) -> Sample:
        """Read the figures now. Raises BenchError."""
        try:
            self._connection.request("GET", "/metrics")
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as exc:
            raise BenchError(f"/metrics gave no answer: {exc!r}") from exc
        if answer.status != 200:
            raise BenchError(f"/metrics answered {answer.status}")
        totals: dict[str, float] = {}
        for name, _, value in _SAMPLE.findall(text):
            totals[name] = totals.get(name, 0) + float(value)
        try:
            return Sample(
                int(totals["events_accepted_total"]),
                int(totals["http_requests_rejected_total"]),
                int(totals["dlq_files_current"]),
                int(totals["dlq_size_bytes"]),
            )
        except KeyError as exc:
            raise BenchError(f"/metrics lacks {exc}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
