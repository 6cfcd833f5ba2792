"""A real HTTP server that records requests and plays what a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.support.threads import Serving

#: How long a held request waits for the test, at most.
_DEADLINE_SECONDS = 20


class Got(NamedTuple):
    """A request as the counterpart saw it."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


Play = Callable[["Handler", Got], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Counterpart"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        got = Got(self.path, dict(self.headers.items()), body, self.client_address[1])
        with self.server.lock:
            self.server.requests.append(got)
            play = self.server.plays.pop(0) if self.server.plays else self.server.otherwise
        play(self, got)

    def answer(
        self, status: int, content: object = None, headers: dict[str, str] | None = None
    ) -> None:
        body = b"" if content is None else json.dumps(content, separators=(",", ":")).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Counterpart(ThreadingHTTPServer):
    """Records requests; plays what ``plays`` says, in order, then ``otherwise``."""

    daemon_threads = False  # so that closing waits for them
    request_queue_size = 64

    def __init__(self, activate: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=activate)
        self.requests: list[Got] = []
        self.plays: list[Play] = []
        self.otherwise: Play = accept
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/collect"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests in a thread."""
        with Serving(self):
            try:
                yield
            finally:
                self.released.set()

    @property
    def bodies(self) -> list[bytes]:
        return [got.body for got in self.requests]


def accept(handler: Handler, got: Got) -> None:
    """Answer as the server does when every event is valid."""
    if got.headers["Content-Type"] == "application/x-ndjson":
        handler.answer(202, {"accepted": got.body.count(b"\n"), "rejected": 0, "errors": []})
    else:
        handler.answer(202, {"accepted": 1})


def refuse(status: int, title: str, retry_after: str | None = None) -> Play:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return lambda handler, _: handler.answer(
        status, {"title": title, "description": "why"}, headers
    )


def hang_up(handler: Handler, got: Got) -> None:
    """Close without an answer."""
    handler.close_connection = True


def hold(handler: Handler, got: Got) -> None:
    """Answer only when the test says so."""
    assert handler.server.released.wait(_DEADLINE_SECONDS)
    handler.close_connection = True
