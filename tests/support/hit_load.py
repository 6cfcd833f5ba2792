"""Steady load of real hits, by clients that know what became of each of their requests."""

import gzip
import http.client
import itertools
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.hits import access_log
from tests.support.server import Answer, ask
from tests.support.threads import Clients

_HITS = 5000

_HIT = re.compile(
    r'(?P<ip>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d+) \S+ '
    r'"(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"?'
)

Connect = Callable[[], http.client.HTTPConnection]


class Sent(NamedTuple):
    """One request, its event and its outcome; all three have one name."""

    name: str
    answer: Answer | None  # None: the connection ended without one

    @property
    def accepted(self) -> bool:
        return self.answer is not None and self.answer.status == 202


class HitLoad(Clients):
    """Clients in threads, each with a keep-alive connection; they never send anything again.

    Each hit is one event with a name, ``n``, as accounting wants it; the request carries the hit's
    User-Agent, and the name as its id. With ``keep_alive`` a client has one connection for all of
    its requests, else one for each. Every other client is behind a proxy of its own, which names
    the hit's address: with what haproxy adds there are two such fields then, so that the server
    leaves the request to gunicorn's loop.
    """

    def __init__(
        self,
        directory: Path,
        connect: Connect,
        *,
        keep_alive: bool = True,
        clients: int = 8,
        pause_seconds: float = 0.015,
    ) -> None:
        super().__init__(clients)
        self._connect = connect
        self._keep_alive = keep_alive
        self._pause_seconds = pause_seconds
        self._sent: list[list[Sent]] = [[] for _ in range(clients)]
        with gzip.open(access_log(directory), "rt", encoding="utf-8") as log:
            lines = itertools.islice(log, _HITS)
            self._hits = [match.groupdict() for match in map(_HIT.match, lines) if match]

    @property
    def sent(self) -> list[Sent]:
        """All requests that have an outcome."""
        return [sent for client in self._sent for sent in client]

    @property
    def accepted(self) -> list[str]:
        """The names of all accepted events."""
        return [sent.name for sent in self.sent if sent.accepted]

    @property
    def failed(self) -> list[Sent]:
        """The requests with any other answer than 202, or none."""
        return [sent for sent in self.sent if not sent.accepted]

    def mark(self) -> list[int]:
        """Return a mark for ``sent_since``."""
        return [len(client) for client in self._sent]

    def sent_since(self, mark: list[int]) -> list[Sent]:
        """Return the requests that were sent after a mark; one of each client was under way."""
        both = zip(self._sent, mark, strict=True)
        return [sent for client, before in both for sent in client[before + 1 :]]

    def run(self, number: int) -> None:
        chance = random.Random(number)
        connection = self._connect()
        for turn in itertools.count(1):
            if self.end.wait(chance.uniform(0, 2 * self._pause_seconds)):
                break
            name = f"{number}-{turn}"
            event = dict(chance.choice(self._hits))
            headers = {
                "Content-Type": "application/json",
                "User-Agent": event.pop("agent"),
                "X-Request-Id": name,
            }
            if number % 2:
                headers["X-Forwarded-For"] = event["ip"]
            body = json.dumps({"n": name, **event}).encode()
            answer = None
            try:
                answer = ask(connection, "POST", "/collect", body, headers)
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request connects again
            self._sent[number].append(Sent(name, answer))
            if not self._keep_alive:
                connection.close()
        connection.close()
