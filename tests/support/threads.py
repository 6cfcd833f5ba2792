"""Clients and servers in threads of the test, for as long as a block."""

import socketserver
import threading
from typing import Self


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
        return f"http://127.0.0.1:{self._server.server_address[1]}"

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
