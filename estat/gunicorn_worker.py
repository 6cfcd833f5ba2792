"""gunicorn's gevent worker, with an end that loses nothing and waits for nobody.

What differs from the stock worker is about stopping:

- it notices a signal at once, not within a second;
- idle keep-alive connections are closed at once (a load balancer always holds
  some, and the stock worker waits for them until it is killed);
- requests in flight are answered with ``Connection: close``;
- SIGINT and SIGQUIT drain like SIGTERM, a lost arbiter and a missed heartbeat too;
- the heartbeat goes on while the pipeline drains.

And one about refusals: a connection that is closed on an unread body is closed
in two steps, so that the sender sees the answer before the end.
"""

import os
import signal
import socket
import time
from functools import partial
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from estat import lifecycle

_HEARTBEAT_SECONDS = 1.0

# What is read of a body that nobody wants, and for how long.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 8 * 1024 * 1024


class EstatWorker(GeventWorker):
    """A worker process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stopping = Event()
        self._connections: set[Any] = set()
        self._in_flight: dict[Any, Any] = {}  # connection -> request

    def init_signals(self) -> None:
        """Let every stop signal drain. Ctrl-C goes to the arbiter, which tells its workers."""
        super().init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop (in a signal handler: no more than flags)."""
        del sig, frame
        self.alive = False
        self._stopping.set()

    handle_quit = handle_exit
    handle_abort = handle_exit  # the heartbeat was late, but the loop is alive: save what is there

    def notify(self) -> None:
        """Beat; without its arbiter a worker drains instead of dropping everything."""
        self.tmp.notify()
        if self.alive and self.ppid != os.getppid():
            self.log.info("Parent changed, draining: %s", self)
            self.handle_exit(signal.SIGTERM, None)

    def run(self) -> None:
        """Serve until told to stop, then drain."""
        servers = [self._listen(listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            self._stopping.wait(_HEARTBEAT_SECONDS)
        drain = lifecycle.begin_drain(self)
        beat = gevent.spawn(self._beat)
        for server in servers:
            server.close()
        for request in self._in_flight.values():
            request.must_close = True
        while self._connections and time.monotonic() < drain.requests_until and not drain.hurried:
            self._close_idle()
            gevent.sleep(0.02)
        for server in servers:
            server.stop(timeout=0)
        drain.finish()
        beat.kill(block=False)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection, known to the drain."""
        self._connections.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._connections.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve a request, known to the drain."""
        self._in_flight[sock] = req
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            if req.must_close and self.alive:
                _linger(sock)
            raise
        finally:
            del self._in_flight[sock]

    def _listen(self, listener: Any) -> StreamServer:
        listener.setblocking(1)
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        pool = Pool(self.worker_connections)
        server = StreamServer(listener, handle=partial(self.handle, listener), spawn=pool, **tls)
        if self.cfg.workers > 1:
            # take one connection a turn, so that they spread over the workers
            server.max_accept = 1
        server.start()
        return server

    def _close_idle(self) -> None:
        for client in self._connections - self._in_flight.keys():
            # what has arrived already is still read and served; then comes the end
            try:
                client._sock.shutdown(socket.SHUT_RD)  # noqa: SLF001 - gevent's own would not wake its reader
            except OSError:
                continue  # closed by the other side meanwhile

    def _beat(self) -> None:
        while True:
            self.tmp.notify()
            gevent.sleep(_HEARTBEAT_SECONDS)


def _linger(sock: Any) -> None:
    """Say that the answer is complete, and read on: a reset would overtake it (RFC 9112, 9.6)."""
    until = time.monotonic() + _LINGER_SECONDS
    left = _LINGER_BYTES
    try:
        sock.shutdown(socket.SHUT_WR)
        while left > 0 and time.monotonic() < until:
            sock.settimeout(_LINGER_SECONDS)
            data = sock.recv(65536)
            if not data:
                return
            left -= len(data)
    except OSError:
        return  # silent, or gone
