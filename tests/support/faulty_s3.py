"""A faulty S3 in front of moto: forwards every byte, until it is told what to do instead.

    s3.fail("503")                            every PUT, until ``heal``
    s3.fail("hang", times=2)                  the next two
    s3.fail("500", key=lambda k: "_000002" in k)

Faults: an HTTP status ("500", "503", "403", "404", "400"); "400_page" (of a proxy, with none
of S3's codes); "hang" (no answer until ``heal``); "reset"; "lands_then_hangs",
"lands_then_resets" (the store has the object, the server never hears of it).

Lies, after which the store has not what it was sent: "cut", "cut_then_hangs",
"cut_then_resets" (it keeps ``body[:keeps]``, with all metadata); "flipped" (one
byte of it is another, and the answer names the checksum of that); "wrong_crc" (nothing is
stored, the ETag is right); "web_page"; "says_200", "says_202", "says_204" (nothing is
stored, and the answer is empty). "lists_nothing" is the listing of an empty bucket. What is
true, and told in another way: see ``answers``.
"""

import base64
import hashlib
import http.client
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.lines import gunzip_lines
from tests.support.threads import Serving

_ERRORS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "403": (403, "AccessDenied", "Access Denied"),
    "404": (404, "NoSuchBucket", "The specified bucket does not exist"),
    "400": (400, "InvalidRequest", "This object is not to S3's taste."),
    "501": (501, "NotImplemented", "A header you provided implies functionality not implemented."),
}
FAULTS = (
    *_ERRORS,
    "400_page",
    "lists_nothing",
    "hang",
    "reset",
    "lands_then_hangs",
    "lands_then_resets",
    "cut",
    "cut_then_hangs",
    "cut_then_resets",
    "flipped",
    "wrong_crc",
    "web_page",
    "says_200",
    "says_202",
    "says_204",
)

_CHECKSUM = "x-amz-checksum-crc32"
_EMPTY = b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
_PAGE = b"<!DOCTYPE html>\n<html>\n<title>Welcome</title>\n<h1>It works!</h1>\n</html>\n"

Headers = list[tuple[str, str]]
Response = tuple[int, Headers, bytes]


@dataclass(frozen=True)
class Attempt:
    """One request as it arrived, and what was done with it."""

    method: str
    key: str
    body: bytes
    conditional: bool
    outcome: str  # a fault's name, or moto's status
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    at: float = field(default_factory=time.monotonic)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return gunzip_lines(self.body)


#: What S3 says to a request with these header fields: status, code, message; None: nothing.
Refuse = Callable[[dict[str, str]], tuple[int, str, str] | None]


#: What the store's answer to a PUT looks like, from the request's fields and the answer's.
Responses = Callable[[dict[str, str], Headers], Headers]


def as_s3_does(request: dict[str, str], answer: Headers) -> Headers:
    """Name the checksum; the ETag is no MD5, as with a KMS key."""
    return [*as_encrypted(request, answer), (_CHECKSUM, request[_CHECKSUM])]


def as_encrypted(request: dict[str, str], answer: Headers) -> Headers:
    """Prove nothing: the ETag is no MD5, and no checksum is named."""
    del request
    opaque = ("ETag", '"' + "e" * 32 + '"')
    return [field for field in answer if field[0].lower() != "etag"] + [opaque]


class Fault:
    """What to do with requests that match, for a number of times."""

    def __init__(
        self, kind: str, method: str, key: Callable[[str], bool], times: int | None, keeps: int
    ) -> None:
        self.kind = kind
        self.keeps = keeps
        self.hits = 0
        self._method = method
        self._key = key
        self._times = times

    def takes(self, method: str, key: str) -> bool:
        if self._times is not None and self.hits >= self._times:
            return False
        return self._method in ("*", method) and self._key(key)


class FaultyS3(Serving):
    """The proxy, in threads of the test's process."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._attempts: list[Attempt] = []
        self._refuse: Refuse = lambda _: None
        self._ignored: tuple[str, ...] = ()
        self._answers: Responses | None = None
        self._release = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(_HTTPServer(self))

    def fail(
        self,
        kind: str,
        *,
        method: str = "PUT",
        key: Callable[[str], bool] = lambda _: True,
        times: int | None = None,
        keeps: int = 60,
    ) -> Fault:
        """From now on treat matching requests so; an earlier fault wins."""
        assert kind in FAULTS, kind
        fault = Fault(kind, method, key, times, keeps)
        with self._lock:
            self._faults.append(fault)
        return fault

    def refuse(self, rule: "Refuse") -> None:
        """From now on refuse what a rule refuses, as S3 does where moto takes everything."""
        with self._lock:
            self._refuse = rule

    def strip(self, *names: str) -> None:
        """From now on drop header fields that begin so, as a store does that ignores them."""
        with self._lock:
            self._ignored = names

    def answers(self, rule: Responses) -> None:
        """From now on answer PUTs that worked so: ``as_s3_does``, ``as_encrypted``."""
        with self._lock:
            self._answers = rule

    def heal(self) -> None:
        """Forward everything again, and let go of whatever hangs."""
        with self._lock:
            self._faults.clear()
            self._refuse = lambda _: None
            self._ignored = ()
            self._answers = None
            self._release.set()
            self._release = threading.Event()

    def attempts(self, method: str = "PUT", prefix: str = "raw/") -> list[Attempt]:
        """Return the attempts of one kind so far, or with ``*`` of all, in order."""
        with self._lock:
            return [
                a for a in self._attempts if method in ("*", a.method) and a.key.startswith(prefix)
            ]

    def puts_by_key(self, prefix: str = "raw/") -> dict[str, list[Attempt]]:
        found: dict[str, list[Attempt]] = {}
        for attempt in self.attempts("PUT", prefix):
            found.setdefault(attempt.key, []).append(attempt)
        return found

    def hang_up(self) -> None:
        self.heal()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # gone already

    # --- in the handlers' threads

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def decide(self, method: str, key: str) -> tuple[Fault | None, threading.Event]:
        with self._lock:
            fault = next((f for f in self._faults if f.takes(method, key)), None)
            if fault:
                fault.hits += 1
            return fault, self._release

    def phrased(self, request: dict[str, str], answer: Headers) -> Headers:
        """Return an answer's fields as this store writes them."""
        with self._lock:
            rule = self._answers
        return rule(request, answer) if rule else answer

    def refusal(self, headers: dict[str, str]) -> tuple[int, str, str] | None:
        with self._lock:
            return self._refuse(headers)

    def record(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts.append(attempt)

    def forward(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> Response:
        upstream = http.client.HTTPConnection("127.0.0.1", self._upstream_port, timeout=30)
        try:
            upstream.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() != "connection" and not name.lower().startswith(self._ignored):
                    upstream.putheader(name, value)
            upstream.putheader("Connection", "close")
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, s3: FaultyS3) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.s3 = s3

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what these tests are about."""


def _lie(kind: str, body: bytes) -> Response:
    """Return the answer of a store that stored nothing."""
    if kind == "lists_nothing":
        return 200, [("Content-Type", "application/xml")], _EMPTY
    if kind == "400_page":
        return 400, [("Content-Type", "text/html")], _PAGE
    if kind == "web_page":
        return 200, [("Content-Type", "text/html"), ("ETag", '"5f1c-62a"')], _PAGE
    if kind == "wrong_crc":
        return 200, [("ETag", f'"{hashlib.md5(body).hexdigest()}"'), (_CHECKSUM, "AAAAAA==")], b""
    return int(kind.removeprefix("says_")), [], b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HTTPServer

    def setup(self) -> None:
        super().setup()
        self.server.s3.opened(self.connection)

    def finish(self) -> None:
        self.server.s3.closed(self.connection)
        super().finish()

    def serve(self) -> None:
        s3 = self.server.s3
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True  # the sender died; the store would wait for the rest
            return
        key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]
        fault, release = s3.decide(self.command, key)
        kind = fault.kind if fault else None
        answer = None
        headers = {name.lower(): value for name, value in self.headers.items()}
        refusal = s3.refusal(headers) if kind is None else None
        if refusal:
            s3.record(Attempt(self.command, key, body, False, refusal[1], headers))
            self._error(key, *refusal)
            return
        answer = self._upstream(fault, headers, body)
        outcome = kind or str(answer and answer[0])
        conditional = "If-None-Match" in self.headers
        s3.record(Attempt(self.command, key, body, conditional, outcome, headers))
        if kind in _ERRORS:
            self._error(key, *_ERRORS[kind])
        elif kind and kind.endswith(("hang", "hangs")):
            release.wait(timeout=120)
            self.close_connection = True
        elif kind and kind.endswith(("reset", "resets")):
            linger = struct.pack("ii", 1, 0)  # closing now sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
        else:
            self._answer(*(answer or _lie(str(kind), body)))

    do_PUT = do_GET = do_HEAD = do_DELETE = do_POST = serve  # noqa: N815

    def _upstream(
        self, fault: Fault | None, headers: dict[str, str], body: bytes
    ) -> Response | None:
        """Have the store do what the fault leaves for it to do."""
        kind = fault.kind if fault else None
        if fault and fault.kind.startswith("cut"):
            return self._keep(body[: fault.keeps])
        if kind == "flipped":
            kept = body[:-1] + bytes([body[-1] ^ 1])
            status, fields, content = self._keep(kept)
            checksum = base64.b64encode(struct.pack(">I", zlib.crc32(kept))).decode()
            return status, [*fields, (_CHECKSUM, checksum)], content
        if kind and not kind.startswith("lands"):
            return None
        response = self.server.s3.forward(self.command, self.path, self.headers.items(), body)
        status, fields, content = response
        if self.command == "PUT" and status == 200:
            return status, self.server.s3.phrased(headers, fields), content
        return response

    def _keep(self, kept: bytes) -> Response:
        """Store other bytes than were sent."""
        replaced = ("content-length", _CHECKSUM)
        sent = [field for field in self.headers.items() if field[0].lower() not in replaced]
        sent.append(("Content-Length", str(len(kept))))
        return self.server.s3.forward(self.command, self.path, sent, kept)

    def _error(self, key: str, status: int, code: str, message: str) -> None:
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message>"
            f"<Resource>/{key}</Resource><RequestId>0</RequestId></Error>"
        )
        self._answer(status, [("Content-Type", "application/xml")], text.encode())

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
