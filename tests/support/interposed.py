"""A proxy in front of the server that refuses POST requests as it is told, and notes all it saw."""

import http.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.support.threads import Serving

_ANSWER_SECONDS = 20


class Seen(NamedTuple):
    """A request as it arrived, and how it was answered."""

    method: str
    path: str
    headers: http.client.HTTPMessage
    body: bytes
    status: int


class Interposed(Serving):
    """The proxy, in threads of the test."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        #: Returns for a body what to answer instead of passing it on: a status and Retry-After.
        self.refuse: Callable[[bytes], tuple[int, str] | None] = lambda _: None
        self.seen: list[Seen] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                instead = proxy.refuse(body) if self.command == "POST" else None
                if instead:
                    status, fields, data = instead[0], _fields(instead[1]), b"{}"
                else:
                    status, fields, data = proxy.ask(self.command, self.path, self.headers, body)
                proxy.seen.append(Seen(self.command, self.path, self.headers, body, status))
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_OPTIONS = _pass  # noqa: N815 - what the library calls

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        super().__init__(server)

    @property
    def posts(self) -> list[Seen]:
        return [request for request in self.seen if request.method == "POST"]

    @property
    def statuses(self) -> list[int]:
        return [request.status for request in self.posts]

    def ask(
        self, method: str, path: str, headers: http.client.HTTPMessage, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Make the request to the server; 502 if it is not there."""
        upstream = http.client.HTTPConnection(
            "127.0.0.1", self.upstream_port, timeout=_ANSWER_SECONDS
        )
        try:
            passed = {k: v for k, v in headers.items() if k.lower() not in ("host", "connection")}
            upstream.request(method, path, body, passed)
            answer = upstream.getresponse()
            data = answer.read()
        except OSError:
            return 502, _fields(""), b"{}"
        finally:
            upstream.close()
        hop = ("connection", "content-length", "date", "server", "transfer-encoding")
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in hop}
        return answer.status, kept, data


def _fields(retry_after: str) -> dict[str, str]:
    fields = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
    return fields | ({"Retry-After": retry_after} if retry_after else {})
