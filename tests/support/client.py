"""A client that numbers its events and remembers what became of each."""

import http.client
import itertools
import json
from typing import NamedTuple

from tests.support.faulty_s3 import FaultyS3
from tests.support.server import Answer, Server, ask
from tests.support.threads import Clients
from tests.support.witness import Witness

_NDJSON = {"Content-Type": "application/x-ndjson"}


class Receipt(NamedTuple):
    """The ids that an answer named, and the events of its request in their order."""

    first: str
    last: str
    names: list[str]


class Client:
    """Sends events ``{"n": "<name>-<i>"}``; the answer to their request decides their list."""

    def __init__(self, name: str = "a", size_bytes: int = 0) -> None:
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.unanswered: list[str] = []  # these may be stored or not
        self.receipts: list[Receipt] = []
        #: Accepted ones of which the answer says that they are in the store (DURABILITY=stored).
        self.stored: list[str] = []
        #: Looks whether that is so, at once.
        self.witness: Witness | None = None
        self._name = name
        self._padding = "x" * size_bytes
        self._numbers = itertools.count(1)

    def send(
        self, server: Server, count: int = 1, *, on: http.client.HTTPConnection | None = None
    ) -> Answer:
        """Send ``count`` events in one request and return its answer."""
        names = [f"{self._name}-{next(self._numbers)}" for _ in range(count)]
        lines = [json.dumps({"n": name, "padding": self._padding}) for name in names]
        body = "\n".join(lines).encode()
        connection = on or server.connection()
        try:
            answer = ask(connection, "POST", "/collect", body, _NDJSON)
        except (OSError, http.client.HTTPException):
            self.unanswered += names
            raise
        finally:
            if on is None:
                connection.close()
        if answer.status == 202:
            assert answer.json["accepted"] == count, answer
            self.accepted += names
            if "ids" in answer.json:
                self.receipts.append(Receipt(*answer.json["ids"], names))
            if server.environ.get("DURABILITY") == "stored" and "kept" not in answer.json:
                self.stored += names
                if self.witness:
                    self.witness.look(names)
        else:
            self.refused += names
        return answer

    def must_send(self, server: Server, count: int = 1, requests: int = 1) -> None:
        """Send ``requests`` times ``count`` events, all of which must be accepted."""
        connection = server.connection()
        try:
            for _ in range(requests):
                answer = self.send(server, count, on=connection)
                assert answer.status == 202, answer
        finally:
            connection.close()

    def must_spill(self, server: Server, s3: FaultyS3, count: int, requests: int = 1) -> None:
        """Send events while S3 is down, and wait until all of them are in the DLQ."""
        s3.fail("503")
        self.must_send(server, count, requests)
        server.until(server.all_on_disk, "the batches are in the DLQ")


class Senders(Clients):
    """Clients in threads, each with a name of its own."""

    def __init__(self, count: int, name: str) -> None:
        super().__init__(count)
        self.clients = [Client(f"{name}{i}") for i in range(count)]

    @property
    def accepted(self) -> list[str]:
        return [name for client in self.clients for name in client.accepted]

    @property
    def stored(self) -> list[str]:
        return [name for client in self.clients for name in client.stored]

    @property
    def unanswered(self) -> list[str]:
        return [name for client in self.clients for name in client.unanswered]

    @property
    def refused(self) -> list[str]:
        return [name for client in self.clients for name in client.refused]

    @property
    def receipts(self) -> list[Receipt]:
        return [receipt for client in self.clients for receipt in client.receipts]


class Load(Senders):
    """Clients in threads that send all the time, each on keep-alive connections."""

    def __init__(
        self,
        server: Server,
        clients: int = 3,
        per_request: int = 5,
        *,
        name: str = "load",
        pause_seconds: float = 0.0,
    ) -> None:
        super().__init__(clients, name)
        self._server = server
        self._per_request = per_request
        self._pause_seconds = pause_seconds

    def run(self, number: int) -> None:
        client = self.clients[number]
        connection = self._server.connection()
        while not self.end.is_set():
            try:
                answer = client.send(self._server, self._per_request, on=connection)
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request connects again
                self.end.wait(0.02)
            else:
                self.end.wait(self._pause_seconds if answer.status == 202 else 0.02)
        connection.close()
