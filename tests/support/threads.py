"""Clients and servers in threads of the test, for as long as a block."""

import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Clients:
    """Runs ``run`` in a number of threads; each returns soon after ``end`` was set."""

    def __init__(self, count: int) -> None:
        self.end = threading.Event()
        self._threads = [threading.Thread(target=self.run, args=(i,)) for i in range(count)]

    def run(self, number: int) -> None:
        """Be the client of this number."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "a client hangs"


class Serving:
    """Runs a server of the standard library in a thread."""

    def __init__(self, server: socketserver.TCPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        address, port = self._server.server_address[:2]
        return f"http://{address!s}:{port}"

    def hang_up(self) -> None:
        """End what is still being answered; called when nothing new is accepted any more."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(timeout=20)
        assert not self._thread.is_alive(), "the server goes on"
        self.hang_up()
        self._server.server_close()


class Service(Serving):
    """Answers HTTP, each request in a thread, and may be late or hang.

    service.fault = "hang"          until ``heal``; other faults are the handler's
    service.delay_seconds = 4       before each answer
    """

    def __init__(self, handler: type["ServiceHandler"]) -> None:
        self.fault = ""
        self.delay_seconds = 0.0
        self.release = threading.Event()
        super().__init__(_HTTPServer(self, handler))

    def heal(self) -> None:
        """Answer again, also those that hang."""
        self.fault = ""
        self.release.set()
        self.release = threading.Event()

    def hang_up(self) -> None:
        self.heal()

    def wait(self, fault: str, release: threading.Event) -> None:
        """Let the time pass that an answer takes; ``release`` was there before the fault."""
        if fault == "hang" or self.delay_seconds:
            release.wait(120 if fault == "hang" else self.delay_seconds)


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, service: Service, handler: type["ServiceHandler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.service: Any = service

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what these tests are about."""


class ServiceHandler(BaseHTTPRequestHandler):
    """Answers for a ``Service``; in HTTP/1.0, so that no connection outlives a test."""

    server: _HTTPServer

    def answer(self, status: int, text: str, content_type: str = "text/plain") -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
