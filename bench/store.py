"""An S3 that can be down, in threads of this process.

It keeps no bodies, only what the metadata says of each object: enough for PUT
with ``If-None-Match`` and for HEAD, and to tell how many events are stored. It
costs next to nothing, so that it does not compete with the server for the CPU.

    refused   nothing listens on its port
    hang      requests are read and never answered
    503       every request is answered so, at once
"""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

OUTAGES = ("refused", "hang", "503")

_META = "x-amz-meta-"
_CHECKSUM = "x-amz-checksum-crc32"
_POLL_SECONDS = 0.05
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class Store:
    """A context manager that listens on a port of its own."""

    def __init__(self, put_seconds: float = 0.0) -> None:
        self.outage: str | None = None
        self.put_seconds = put_seconds  # how long it lets a PUT wait
        self.healed = threading.Event()
        # each of the handlers' accesses to these is one step of the interpreter, so needs no lock
        self.objects: dict[str, dict[str, str]] = {}  # metadata by key
        self.connections: set[socket.socket] = set()
        self._server = _Server(self, 0)
        self._port: int = self._server.server_address[1]

    @property
    def url(self) -> str:
        """Where it is, or would be."""
        return f"http://127.0.0.1:{self._port}"

    def stored_events(self, prefix: str) -> int:
        """Return how many events the objects under a prefix hold, by their metadata."""
        found = list(self.objects.items())
        return sum(int(metadata["events"]) for key, metadata in found if key.startswith(prefix))

    def fail(self, outage: str) -> None:
        """Be down from now on."""
        self.healed.clear()
        self.outage = outage
        if outage == "refused":
            self._unlisten()

    def heal(self) -> None:
        """Work again, and hang up on whoever still waits."""
        outage, self.outage = self.outage, None
        self.healed.set()
        if outage == "refused":
            self._server = _Server(self, self._port)
            self._listen()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.healed.set()
        if self.outage != "refused":
            self._unlisten()

    def _listen(self) -> None:
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(_POLL_SECONDS,), daemon=True).start()

    def _unlisten(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # gone already
                connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: Store, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.store = store

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up during an outage is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.store.connections.add(self.connection)

    def finish(self) -> None:
        self.server.store.connections.discard(self.connection)
        super().finish()

    def do_PUT(self) -> None:
        store = self.server.store
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._down():
            return
        metadata = {
            name.lower().removeprefix(_META): value
            for name, value in self.headers.items()
            if name.lower().startswith(_META)
        }
        time.sleep(store.put_seconds)
        # there is no If-None-Match but "*", and the server sends no other PUTs
        if store.objects.setdefault(self._key, metadata) is metadata:
            # what proves to the server that the object is stored
            self._answer(200, {_CHECKSUM: self.headers[_CHECKSUM] or ""})
        else:
            self._answer(412)

    def do_HEAD(self) -> None:
        if self._down():
            return
        metadata = self.server.store.objects.get(self._key)
        if metadata is None:
            self._answer(404)
        else:
            described = {_META + name: value for name, value in metadata.items()}
            self._answer(200, described | {"Content-Length": metadata["bytes"]})

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def _down(self) -> bool:
        """Do what the outage of the moment says; tell whether there is one."""
        outage = self.server.store.outage
        if outage == "503":
            self._answer(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
        elif outage:
            self.server.store.healed.wait()
            self.close_connection = True
        return outage is not None

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
