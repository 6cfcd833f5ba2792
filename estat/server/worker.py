"""gunicorn's gevent worker, with a fast loop for plain requests and an end that loses nothing.

``connection`` has the fast loop. It is not used where a setting of gunicorn's asks for
what it does not do: TLS, an access log, hooks about requests. A client that is late is cut
off: after READ_TIMEOUT for a whole head, after KEEPALIVE on an idle connection.

The other differences from the stock worker are about stopping:

- It notices a signal at once, not within a second.
- It closes idle keep-alive connections at once. A load balancer always holds some, and the
  stock worker waits for them until it is killed. Where the server goes on without this
  worker, these connections have a moment for one more request.
- It answers requests in flight with ``Connection: close``.
- SIGQUIT drains like SIGTERM. So do the loss of the arbiter and a late heartbeat. SIGINT is the
  arbiter's, which then stops its workers.
- The heartbeat goes on while the pipeline drains.
"""

import io
import math
import os
import signal
import socket
import time
from contextlib import nullcontext
from functools import lru_cache, partial
from http import HTTPStatus
from types import FrameType, SimpleNamespace
from typing import Any
from wsgiref.types import WSGIEnvironment

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from estat.accounting import metrics
from estat.accounting.shared_memory import DRAINING, SERVING
from estat.server import drain, inherited
from estat.server.connection import MAX_LINE_BYTES, Connection
from estat.server.plain_request import PlainRequests
from estat.server.responses import Responses
from estat.web.environ import BODY

#: When connections run out, room is made for one in so many: looking for them takes a while.
_ROOM_SHARE = 64

_HEARTBEAT_SECONDS = 1.0
_SWEEP_SECONDS = 0.5
_POLL_SECONDS = 0.02

#: How long a worker serves on that others replace, so that connections in use may end in order.
_LEAVE_SECONDS = 2.0

#: How long requests that waited for the store may take to send their answers, in a drain.
_ANSWER_SECONDS = 0.3

#: Of a socket: host, port and so on, or the path of a unix socket.
Address = tuple[Any, ...] | str


class EstatWorker(GeventWorker):
    """A worker process; the ``Host`` of its connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stopping = Event()
        self._connections: set[Connection] = set()
        self._in_flight: dict[Connection, Request] = {}  # in gunicorn's loop
        current = inherited.settings()
        self.idle_seconds, self.head_seconds = current.keepalive, current.read_timeout
        status = HTTPStatus(int(current.accepted_status))
        self._responses = Responses(self.cfg, f"{status:d} {status.phrase}")
        self._set_head_limits()
        self.plain_requests = PlainRequests(
            self.cfg.limit_request_fields,
            min(self.cfg.limit_request_line or MAX_LINE_BYTES, self.cfg.limit_request_field_size)
            - 2,
        )
        self._plain = self._serves_plain_requests()
        self._base = lru_cache(maxsize=16)(self._base_environ)

    def _set_head_limits(self) -> None:
        """Leave the limits to ``Connection`` that nobody has set: gunicorn's are below an ALB's."""
        for name, value in (
            ("limit_request_line", 0),
            ("limit_request_field_size", MAX_LINE_BYTES),
        ):
            setting = self.cfg.settings[name]
            if setting.get() == setting.default:
                self.cfg.set(name, value)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that failed; count one that gunicorn's parser refuses."""
        if isinstance(exc, ParseException):
            self.wsgi.pipeline.counts.count(metrics.REQUESTS_MALFORMED)
        super().handle_error(req, client, addr, exc)

    def init_signals(self) -> None:
        """Let every stop signal drain, but leave Ctrl-C to the arbiter, which tells its workers."""
        super().init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        """Begin to stop. This is a signal handler, so it only sets flags."""
        self.alive = False
        self._stopping.set()

    handle_quit = handle_exit
    handle_abort = handle_exit  # the heartbeat was late, but the event loop works: save the events

    #: gunicorn's own limit would cut off, after KEEPALIVE, a head that READ_TIMEOUT allows.
    timeout_ctx = staticmethod(nullcontext)

    def notify(self) -> None:
        """Beat; without its arbiter a worker drains instead of dropping everything."""
        self.tmp.notify()
        if self.alive and self.ppid != os.getppid():
            self.log.info("Parent changed, draining: %s", self)
            self.handle_exit(signal.SIGTERM, None)

    def run(self) -> None:
        """Serve until told to stop, then drain."""
        servers = [self._listen(listener) for listener in self.sockets]
        sweep = gevent.spawn(self._sweep, servers)
        while self.alive:
            self.notify()
            self._stopping.wait(_HEARTBEAT_SECONDS)
        ending = drain.begin(self.wsgi.pipeline)
        beat = gevent.spawn(self._beat)
        self._take_leave(ending.requests_until)
        sweep.kill(block=False)
        for server in servers:
            server.close()
        for request in self._in_flight.values():
            request.must_close = True
        # the pools also hold connections that were accepted a moment ago and have not begun
        while any(server.pool for server in servers) and (
            time.monotonic() < ending.requests_until and not ending.hurried
        ):
            gevent.sleep(_POLL_SECONDS)  # read first what has arrived: its connection is not idle
            self._close_idle()
        answering_seconds = _ANSWER_SECONDS if self.wsgi.pipeline.answer_waiting() else 0
        for server in servers:
            server.stop(timeout=answering_seconds)
        ending.finish()
        beat.kill(block=False)

    def _take_leave(self, deadline: float) -> None:
        """Serve on for a moment, if the server goes on without this worker.

        A balancer still sends requests to this server then. A request that meets the end of its
        connection gets no answer. So each connection in use must end with an answer that says so.
        """
        now = time.monotonic()
        # requests that are in flight at the end of it have as long again
        until = min(now + _LEAVE_SECONDS, (now + deadline) / 2)
        while self._connections and time.monotonic() < until and self._server_goes_on():
            gevent.sleep(_POLL_SECONDS)

    def _server_goes_on(self) -> bool:
        return (
            inherited.page().state in (SERVING, DRAINING)
            and self.ppid == os.getppid()
            and not self.wsgi.pipeline.broken
        )

    def handle(self, listener: SimpleNamespace, client: Any, addr: Address) -> None:
        """Serve a connection; the drain knows it meanwhile."""
        base: WSGIEnvironment = {}
        plain = self._plain and isinstance(addr, tuple)
        if plain:
            base = self._base(listener.getsockname()) | {
                "REMOTE_ADDR": addr[0],
                "REMOTE_PORT": str(addr[1]),
                "gunicorn.socket": client,
            }
        if len(self._connections) >= self.worker_connections:
            self._make_room()
        connection = Connection(self, client, base)
        self._connections.add(connection)
        try:
            while not plain or connection.serve():
                super().handle(listener, connection, addr)
                if not connection.resumes:
                    break
        except Exception as exc:  # noqa: BLE001 - the application's, in the fast loop
            self.handle_error(None, client, addr, exc)
        finally:
            self._connections.discard(connection)
            util.close(client)

    def _make_room(self) -> None:
        """End some connections that wait for their clients: idle ones, which waited longest, first.

        If there are none, requests that wait for the store are answered. If there are none of these
        either, the listener waits until a request is answered.
        """
        now = time.monotonic()  # a client that has just connected is about to send
        waiting = [one for one in self._connections if one.waits_since < math.inf]
        if not waiting:
            self.wsgi.pipeline.relieve()
        # idle is not who is in a request, which has no deadline here
        waiting.sort(key=lambda c: (c.awaited_until > now or c.deadline == math.inf, c.waits_since))
        for connection in waiting[: 1 + self.worker_connections // _ROOM_SHARE]:
            self._connections.discard(connection)
            connection.abort()

    def serve_plain(self, environ: WSGIEnvironment) -> tuple[bytes, bool]:
        """Count a request of the fast loop; return its answer, and whether it is the last."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        body = self.wsgi.accept(environ)
        if body is not None:
            origin = environ.get("HTTP_ORIGIN")
            return self._responses.accepted(body, origin, must_close=not self.alive)
        environ["wsgi.input"] = io.BytesIO(environ[BODY])
        begun: list[tuple[Any, ...]] = []
        answer = self.wsgi(environ, lambda *begin: begun.append(begin))
        try:
            body = b"".join(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        method, (status, fields, *_) = environ["REQUEST_METHOD"], begun[-1]
        return self._responses.pack(method, status, fields, body, must_close=not self.alive)

    def handle_request(self, name: Address, req: Request, sock: Connection, addr: Address) -> None:
        """Serve a request in gunicorn's loop; the drain knows it meanwhile."""
        self._in_flight[sock] = req
        sock.request_begun()
        _join_cookies(req)
        try:
            super().handle_request(name, req, sock, addr)
        finally:
            del self._in_flight[sock]
        sock.request_done()
        if self._plain and isinstance(addr, tuple):
            # the fast loop takes the next request: our application has read the body to its end
            if not req.should_close():
                sock.resume(req.unreader.take_buffered())
            raise StopIteration  # which gunicorn takes for the end of the connection

    def _listen(self, listener: socket.socket) -> StreamServer:
        listener.setblocking(True)
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        pool = Pool(self.worker_connections + 1)  # one more, for which room is made
        # a drain closes the listener's socket while its connections go on
        name = listener.getsockname()
        handle = partial(self.handle, SimpleNamespace(getsockname=lambda: name))
        server = StreamServer(listener, handle=handle, spawn=pool, **tls)
        if self.cfg.workers > 1:
            # accept one connection at a time, so that they spread over the workers
            server.max_accept = 1
        server.start()
        return server

    def _serves_plain_requests(self) -> bool:
        """Return whether the fast loop does all that gunicorn's settings ask for."""
        cfg = self.cfg
        own_hooks = any(
            cfg.settings[name].get() is not cfg.settings[name].default
            for name in ("pre_request", "post_request")
        )
        return not (
            cfg.is_ssl
            or own_hooks
            or self.log.access_log_enabled
            or cfg.statsd_host
            or cfg.proxy_protocol not in (False, "off")
            or not cfg.keepalive
            or self._base_environ(self.sockets[0].getsockname())["SCRIPT_NAME"]
        )

    def _base_environ(self, address: Address) -> WSGIEnvironment:
        """Return the part of the environment that is the same for all requests to a listener."""
        request = next(RequestParser(self.cfg, iter([b"GET / HTTP/1.1\r\n\r\n"]), ("", 0)))
        _, environ = wsgi.create(request, None, ("", 0), address, self.cfg)
        environ["wsgi.multithread"] = True
        del environ["wsgi.early_hints"]  # belongs to the one request
        return dict(environ)

    def _close_idle(self) -> None:
        now = time.monotonic()
        for connection in self._connections:
            if not connection.busy and connection.awaited_until < now:
                connection.end_reading()  # a request that has arrived already is still served

    def _sweep(self, servers: list[StreamServer]) -> None:
        """End connections whose clients are late; let no connections stay used up."""
        while True:
            gevent.sleep(_SWEEP_SECONDS)
            if any(server.full() for server in servers):
                self._make_room()
            now = time.monotonic()
            for connection in list(self._connections):
                if connection.deadline < now:
                    connection.abort()

    def _beat(self) -> None:
        while True:
            self.tmp.notify()
            gevent.sleep(_HEARTBEAT_SECONDS)


def _join_cookies(req: Request) -> None:
    """Make several fields of cookies one, as RFC 9113 says (8.2.3); gunicorn joins by commas."""
    cookies = [value for name, value in req.headers if name == "COOKIE"]
    if len(cookies) > 1:
        others = [(name, value) for name, value in req.headers if name != "COOKIE"]
        req.headers = [*others, ("COOKIE", "; ".join(cookies))]
