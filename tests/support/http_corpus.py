# ruff: noqa: C901 - bytes are easier to read as they are sent
"""Requests, regular and odd, after RFC 9110 and RFC 9112: what servers disagree about.

Each is the bytes of one connection. Every event tells the name of its case.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

#: What the servers of the tests are started with.
MAX_EVENT, MAX_BODY = 16 * 1024, 128 * 1024

#: The limits that both servers are told: the request line, a field with its CRLF, the number of
#: fields. Without them the server's own worker has an ALB's, gunicorn's worker its own.
MAX_LINE, MAX_FIELD, MAX_FIELDS = 4000, 8000, 100

_METHOD = re.compile(rb"(?m)^([A-Z]+) [^ \r\n]+ HTTP/1\.[01]\r$")

Cases = Iterator[tuple[str, bytes]]


class Case(NamedTuple):
    """The bytes of one connection."""

    name: str
    data: bytes
    waits: bool = False  # for more bytes: the server says nothing (more) until they end

    @property
    def ends_with_head(self) -> bool:
        return _METHOD.findall(self.data)[-1:] == [b"HEAD"]


def event(name: str, padding: int = 0) -> bytes:
    return json.dumps({"case": name, "pad": "x" * padding}).encode()


def request(
    *fields: str | bytes,
    line: str | bytes = "POST /collect HTTP/1.1",
    body: bytes = b"",
    host: str | None = "Host: estat.example",
    end: bytes = b"\r\n",
) -> bytes:
    """Return a request of exactly these parts: no field is added but Host."""
    lines = [line, *([host] if host else []), *fields]
    return b"".join(_bytes(part) + end for part in lines) + end + body


def post(name: str, *fields: str | bytes, padding: int = 0, **parts) -> bytes:
    """Return a regular POST of one event, with fields in front of the usual ones."""
    body = event(name, padding)
    usual = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return request(*fields, *usual, body=body, **parts)


def named(name: str, *fields: str | bytes, **parts) -> tuple[str, bytes]:
    """Return a case: a regular POST of an event that tells its name."""
    return name, post(name, *fields, **parts)


def exactly(name: str, *fields: str | bytes, **parts) -> tuple[str, bytes]:
    """Return a case: a request of exactly these parts, and Host."""
    return name, request(*fields, **parts)


def asked(name: str, path: str, *fields: str | bytes, **parts) -> tuple[str, bytes]:
    """Return a case: a GET, or another request without a body."""
    return name, get(path, *fields, **parts)


def get(path: str, *fields: str | bytes, method: str = "GET", version: str = "HTTP/1.1", **parts):
    return request(*fields, line=f"{method} {path} {version}", **parts)


def chunked(*pieces: bytes, last: bytes = b"0\r\n\r\n", extension: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(p), extension, p) for p in pieces) + last


def _bytes(part: str | bytes) -> bytes:
    return part if isinstance(part, bytes) else part.encode("latin-1")


# --- RFC 9110: methods, targets, connections


def regular() -> Cases:
    for path in (
        "/collect",
        "/health",
        "/ready",
        "/metrics",
        "/",
        "/nothing",
        "/collect/",
        "//",
        "/error",
    ):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"):
            yield f"{method} {path}", get(path, method=method)
    for path in (
        "/health",
        "/ready",
        "/metrics",
        "/nothing",
        "/collect/",
        "/collect?a=b",
        "/error",
    ):
        yield named(f"POST {path}", line=f"POST {path} HTTP/1.1")
    yield named("a plain event")
    yield named(
        "an event with many fields",
        "User-Agent: agent/1.0 (x; y)",
        "Accept: */*",
        "Accept-Encoding: gzip, br",
        "X-Forwarded-For: 203.0.113.7, 10.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 443",
        "Cookie: a=b; c=d",
        "Origin: https://shop.example",
        "Referer: https://shop.example/?q=1",
        "X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678",
    )
    for name in ("content-type", "CONTENT-TYPE", "cOnTeNt-TyPe"):
        body = event(name)
        yield exactly(
            f"field name in case {name}",
            f"{name}: application/json",
            f"{name[0]}ontent-length: {len(body)}",
            body=body,
        )
    batch = b"\n".join(event("ndjson") for _ in range(5))
    yield "events without a type", request(f"Content-Length: {len(batch)}", body=batch)
    for body in (b"[]", b"{", b"1", b"null", b'"a"', b" ", b"\r\n", b"\xff", b'[{"case":"array"}]'):
        yield exactly(
            f"body {body!r}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            body=body,
        )
    for encoding in ("identity", "gzip", ""):
        yield named(f"content encoding {encoding or 'empty'}", f"Content-Encoding: {encoding}")


def connections() -> Cases:
    values = (
        "close",
        "keep-alive",
        "close, keep-alive",
        "keep-alive, close",
        "close ",
        "close,",
        "",
        "Upgrade, HTTP2-Settings",
        "foo",
        "keep-alive\tclose",
        '"close"',
        "close\t",
    )
    for version in ("HTTP/1.0", "HTTP/1.1"):
        yield named(f"{version} without Connection", line=f"POST /collect {version}")
        for value in values:
            yield named(
                f"{version} with Connection {value!r}",
                f"Connection: {value}",
                line=f"POST /collect {version}",
            )
        for first, second in (
            ("close", "keep-alive"),
            ("keep-alive", "keep-alive"),
            ("foo", "close"),
            ("", "close"),
        ):
            yield named(
                f"{version} with Connection twice, {first!r} and {second!r}",
                f"Connection: {first}",
                f"connection: {second}",
                line=f"POST /collect {version}",
            )
        for path in ("/health", "/nothing", "/collect"):
            for method in ("GET", "HEAD", "OPTIONS"):
                yield f"{version} {method} {path}", get(path, method=method, version=version)
                yield asked(
                    f"{version} {method} {path} to keep",
                    path,
                    "Connection: keep-alive",
                    method=method,
                    version=version,
                )
        yield named(
            f"{version} with Keep-Alive and Proxy-Connection",
            "Keep-Alive: timeout=5, max=1",
            "Proxy-Connection: close",
            line=f"POST /collect {version}",
        )
    yield named(
        "an upgrade to h2c",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    )
    name = "an upgrade to websocket"
    yield asked(
        name,
        "/collect",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    yield named("an upgrade without Connection", "Upgrade: h2c")


def targets() -> Cases:
    for target in (
        "/collect?",
        "/collect?a=b&c=d",
        "/collect?a=%zz",
        "/collect#f",
        "/collect?a=[1]",
        "/%63ollect",
        "/collect%20",
        "/collect%00",
        "/collect%",
        "/collect%zz",
        "/collect%C3%A9",
        "/collect;a=b",
        "/../collect",
        "//collect",
        "/collect/..",
        "/collect|",
        "/<collect>",
        "/collect^",
        "/collect:80",
        "/~collect",
        "/collect?a=//b",
        "//estat.example/collect",
        "//[::1/collect",
        "http://estat.example/collect",
        "http://estat.example",
        "HTTP://estat.example/collect",
        "http:///collect",
        "http://[::1/collect",
        "http://estat.example:99999/collect",
        "http:/collect",
        "://",
        "*",
        "collect",
        "estat.example:80",
        "#",
        "",
    ):
        name = f"target {target!r}"
        yield named(f"POST {name}", line=f"POST {target} HTTP/1.1")
        yield f"GET {name}", get(target)
    yield "OPTIONS *", get("*", method="OPTIONS")
    yield "HEAD *", get("*", method="HEAD")
    for method in ("CONNECT", "OPTIONS"):
        for target in ("estat.example:80", "/collect", "http://estat.example/collect"):
            yield f"{method} {target}", get(target, method=method)
    for byte in (*range(0x21), 0x7F, 0x80, 0xA0, 0xC3, 0xFF):
        yield named(f"byte {byte:#04x} in the target", line=b"POST /coll%cect HTTP/1.1" % byte)
        yield named(f"byte {byte:#04x} in the query", line=b"POST /collect?a%cb HTTP/1.1" % byte)


def request_lines() -> Cases:
    for method in (
        "post",
        "GE",
        "A" * 20,
        "A" * 21,
        "PO-ST",
        "PO ST",
        "P#ST",
        "P\xd6ST",
        "PO\x00T",
        "PRI",
        "M-SEARCH",
        "!!!",
        "",
    ):
        yield named(f"method {method!r}", line=f"{method} /collect HTTP/1.1")
    for version in (
        "HTTP/1.2",
        "HTTP/0.9",
        "HTTP/2.0",
        "HTTP/1",
        "HTTP/1.10",
        "HTTP/1.01",
        "http/1.1",
        "HTTP/1.1 ",
        " HTTP/1.1",
        "HTTP /1.1",
        "HTTP/1.1\t",
        "HTTP/1.1\x00",
        "HTTP/1.1x",
        "HTTP/+1.1",
        "ICY/1.1",
        "",
        "HTTP/1.1 HTTP/1.1",
    ):
        yield named(f"version {version!r}", line=f"POST /collect {version}")
    for line in (
        "POST  /collect HTTP/1.1",
        "POST /collect  HTTP/1.1",
        "POST\t/collect\tHTTP/1.1",
        " POST /collect HTTP/1.1",
        "POST /collect",
        "",
        "/collect HTTP/1.1",
        "POST /collect HTTP/1.1 ",
        "POST\xa0/collect\xa0HTTP/1.1",
        "POST /col lect HTTP/1.1",
        "\ufeff".encode().decode("latin-1") + "POST /collect HTTP/1.1",
        "HTTP/1.1 200 OK",
        "\x16\x03\x01\x02\x00",
        "POST /collect HTTP/1.1\r",
        "\rPOST /collect HTTP/1.1",
        "\x00POST /collect HTTP/1.1",
    ):
        yield named(f"line {line!r}", line=line)
    yield "an HTTP/0.9 request", b"GET /collect\r\n"
    yield (
        "an HTTP/2 preface",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    )
    yield "a PROXY line", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + post("a PROXY line")
    yield (
        "a PROXY v2 header",
        (
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"
            + post("a PROXY v2 header")
        ),
    )


# --- RFC 9112, 2.2: line ends


def line_ends() -> Cases:
    plain = post("line ends")
    for count in (1, 2, 3):
        yield f"{count} empty lines first", b"\r\n" * count + plain
    for first in (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b" \r\n", b"\r\n\n", b"\r\n\r", b"\r\n \r\n"):
        yield f"{first!r} first", first + plain
    yield named("LF only", end=b"\n")
    yield named("CR only", end=b"\r")
    yield named("CR CR LF", end=b"\r\r\n")
    yield named("LF CR", end=b"\n\r")
    ends = [m.start() for m in re.finditer(b"\r\n", plain)]
    for at, place in enumerate(("line", "host", "type", "length", "head")):
        start = ends[at]
        for end in (b"\n", b"\r", b"\n\n", b"\r\r\n", b"\r\n\n", b"\n\r\n", b"\r \n", b"\x85", b""):
            name = f"{end!r} at the end of the {place}"
            yield name, plain[:start] + end + plain[start + 2 :]
    for byte in (b"\r", b"\n", b"\x00", b"\x0b", b"\x0c", b"\x1c", b"\x85"):
        yield named(f"{byte!r} in a value", b"X-A: a" + byte + b"b")
        yield named(
            f"{byte!r} in a value, before a length", b"X-A: a" + byte + b"Content-Length: 3"
        )
        yield named(f"{byte!r} at the end of a value", b"X-A: a" + byte)
        yield named(f"{byte!r} at the start of a value", b"X-A:" + byte + b"a")
        name = f"{byte!r} around the length"
        yield exactly(
            name,
            b"Content-Length:" + byte + b"12" + byte,
            "Content-Type: application/json",
            body=b'{"case":"r"}',
        )
    yield "an LF in a head without an end", plain[: ends[1]] + b"\n"
    yield "an LF after the line, and no more", plain[: ends[0]] + b"\n"


# --- events in a query, a form, or compressed


def queries() -> Cases:
    for path in ("/collect", "/collect.gif"):
        for query in (
            "a=b",
            "a=x+y%20z%2B",
            "a=%C3%A9",
            "a=%zz%4%",
            "%61=%26%3D",
            "a=b;c=d",
            "a={}[]|",
            "a=\xe9",
            "a=b?c=d",
            "a=b#c=d",
            "&&",
            "key=secret&a=b",
            "%6bey=secret&a=b",
            "a=" + "b" * 4000,
            "a=" + "b" * 5000,
            "&".join("a" for _ in range(1000)),
            "&".join("a" for _ in range(1001)),
        ):
            for method in ("GET", "HEAD"):
                yield f"{method} {path}?{query}", get(f"{path}?{query}", method=method)
        name = f"a query of {path} and a body"
        yield named(name, line=f"GET {path}?a=b HTTP/1.1")
        yield exactly(
            f"{name} in chunks",
            "Transfer-Encoding: chunked",
            line=f"GET {path}?a=b HTTP/1.1",
            body=chunked(event(name)),
        )
        yield f"HTTP/1.0 GET {path}?a=b", get(f"{path}?a=b", version="HTTP/1.0")
        yield named(f"POST {path} with query and body", line=f"POST {path}?a=b HTTP/1.1")
        yield f"GET {path} six times", get(f"{path}?a=b") * 3 + get(f"{path}?a=%41!") * 3
    for data in (b"a=1&b=x+y&b=%C3%A9", b"a=\xff", b'{"a":1}', b"&", b"", b"key=k", b"a&" * 1000):
        for media_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
            yield exactly(
                f"{data[:20]!r} as {media_type}",
                f"Content-Type: {media_type}",
                f"Content-Length: {len(data)}",
                body=data,
            )


# --- RFC 9110, 5: fields


def fields() -> Cases:
    for byte in (*range(0x21), *b'"(),/:;<=>?@[\\]{}', 0x7F, 0x80, 0xA0, 0xB5, 0xDF, 0xFF):
        yield named(f"byte {byte:#04x} in a name", b"X-%c-A: b" % byte)
        yield named(f"byte {byte:#04x} before the colon", b"X-A%c: b" % byte)
        yield named(f"byte {byte:#04x} before a name", b"%cX-A: b" % byte)
        yield named(f"byte {byte:#04x} in a value", b"X-A: b%cc" % byte)
        yield named(f"byte {byte:#04x} in User-Agent", b"User-Agent: b%cc" % byte)
    for byte in b"!#$%&'*+-.^_`|~09az":
        yield named(f"token {byte:c} in a name", b"X%cA: b" % byte)
        yield named(f"token {byte:c} as a name", b"%c: b" % byte)
    for line in (
        ": no name",
        "no colon",
        "X-A",
        "X-A :b",
        "X-A\t: b",
        " X-A: b",
        "X-A:",
        "X-A: \t b \t ",
        "X-A:b",
        "X-A::b",
        "X A: b",
        "Content-Length : 3",
        "Transfer-Encoding : chunked",
        "GET / HTTP/1.1",
        "X-A: \xc3\xa9",
        "X-A: \xff\xfe",
        "\xdfX: a",
        "X-\u017f".encode().decode("latin-1") + ": a",
    ):
        name = f"field {line!r}"
        yield named(name, line)
        yield exactly(
            f"{name} last",
            "Content-Type: application/json",
            "Content-Length: 12",
            line,
            body=b'{"case":"l"}',
        )
    for name in (
        "X-A: a\r\n b",
        "X-A: a\r\n\tb",
        "X-A:\r\n b",
        "X-A: a\r\n ",
        "X-A: a\r\n \r\n b",
        "Content-Length:\r\n 12",
        "Transfer-Encoding:\r\n chunked",
    ):
        yield named(f"folded {name!r}", name)
    yield named("folded behind the line", " X-A: b", host=None)
    yield named("folded Host", host="Host:\r\n estat.example")
    for line in ("Host", "Content-Type", "User-Agent", "X-Forwarded-For", "X-A"):
        for values in (("a", "a"), ("a", "b"), ("", "a")):
            yield named(f"{line} again, {values}", *(f"{line}: {value}" for value in values))
            yield named(
                f"{line} again in lower case, {values}",
                f"{line}: {values[0]}",
                f"{line.lower()}: {values[1]}",
            )
    for host in (
        None,
        "Host:",
        "Host: a b",
        "Host: a/b",
        "Host: [::1]",
        "Host: \xff",
        "Host: a:b:c",
        "host: a",
    ):
        for version in ("HTTP/1.0", "HTTP/1.1"):
            yield named(
                f"{version} with {host or 'no Host'!r}", host=host, line=f"POST /collect {version}"
            )
    yield "no field at all", b"GET /health HTTP/1.1\r\n\r\n"
    yield "no field at all for an event", b"POST /collect HTTP/1.1\r\n\r\n"
    for line in (
        "X_Forwarded_For: 1.2.3.4",
        "Content_Length: 3",
        "Transfer_Encoding: chunked",
        "SCRIPT_NAME: /x",
        "SCRIPT_NAME: /collect",
        "script_name: /",
        "PATH_INFO: /health",
        "SCRIPT-NAME: /x",
        "REMOTE_ADDR: 1.2.3.4",
        "_: a",
        "Proxy: http://evil.example",
        "wsgi.input: a",
        "HTTPS: on",
        "Server-Protocol: HTTP/1.0",
    ):
        yield named(f"field {line}", line)
    yield named(
        "a hyphen and an underscore", "X-Forwarded-For: 1.1.1.1", "X_Forwarded_For: 2.2.2.2"
    )


def forwarded() -> Cases:
    for value in ("http", "https", "ftp", "", "https,http"):
        yield named(f"X-Forwarded-Proto {value!r}", f"X-Forwarded-Proto: {value}")
    pairs = (
        ("X-Forwarded-Proto: https", "X-Forwarded-Proto: http"),
        ("X-Forwarded-Proto: https", "X-Forwarded-Proto: https"),
        ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"),
        ("X-Forwarded-Proto: http", "X-Forwarded-Ssl: on"),
        ("X-Forwarded-Proto: http", "X-Forwarded-Protocol: ssl"),
        ("X-Forwarded-Protocol: ssl", "X-Forwarded-Ssl: off"),
        ("X-Forwarded-Proto: https", "X_Forwarded_Proto: http"),
        ("X-Forwarded-Proto: https", "Forwarded: proto=http"),
    )
    for pair in pairs:
        for order in (pair, pair[::-1]):
            yield named(" and ".join(order), *order)
    for line in (
        "X-Forwarded-Ssl: on",
        "X-Forwarded-Ssl: off",
        "X-Forwarded-Protocol: ssl",
        "X-Forwarded-Host: a",
        "Forwarded: for=1.2.3.4;proto=https",
        "X-Forwarded-For: 1.2.3.4, 5.6.7.8",
        "X-Forwarded-For: unknown",
        "X-Forwarded-For:",
        "X-Forwarded-For: 1.2.3.4:80, ,",
    ):
        yield named(line, line)


# --- RFC 9112, 6: the length of a body


def lengths() -> Cases:
    body = event("length")
    size = len(body)
    for value in (
        f"+{size}",
        f"-{size}",
        f"0{size}",
        f" {size}",
        f"{size} ",
        f"{size}.0",
        f"0x{size:x}",
        f"{size},",
        f"{size}, {size}",
        f"{size}, 3",
        f"{size} {size}",
        "",
        f"{size}\xa0",
        f"{size // 10}_{size % 10}",
        f'"{size}"',
        "-0",
        "0",
        "0, 0",
        "\xb2",
        "\u0664".encode().decode("latin-1"),
        f"{size}\x00",
        f"\x00{size}",
        "1" + "0" * 30 + "x",
    ):
        yield exactly(
            f"Content-Length {value!r}",
            "Content-Type: application/json",
            f"Content-Length: {value}",
            body=body,
        )
    for first, second in (
        (size, size),
        (size, size + 1),
        (size, 0),
        (0, size),
        (size, ""),
        (size, "x"),
    ):
        for name in ("Content-Length", "content-length"):
            yield exactly(
                f"Content-Length {first!r} and {name} {second!r}",
                f"Content-Length: {first}",
                "Content-Type: application/json",
                f"{name}: {second}",
                body=body,
            )
    for method in ("GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH"):
        for path in ("/health", "/nothing", "/collect"):
            yield named(f"a body on {method} {path}", line=f"{method} {path} HTTP/1.1")
    for path in ("/nothing", "/health", "/collect"):
        for large in (0, 2000, 70_000, 200_000):
            yield named(
                f"a body of {large} and more on {path}", line=f"POST {path} HTTP/1.1", padding=large
            )
            yield named(
                f"a body of {large} and more on PUT {path}",
                line=f"PUT {path} HTTP/1.1",
                padding=large,
            )
    for method in ("POST", "GET", "PUT"):
        for path in ("/collect", "/nothing", "/health"):
            line = f"{method} {path} HTTP/1.1"
            yield f"{line} with no length", request("Content-Type: application/json", line=line)
            yield f"{line} with length 0", request("Content-Length: 0", line=line)
    yield "a body without a length", request("Content-Type: application/json", body=body)
    yield exactly(
        "a body longer than its length",
        "Content-Type: application/json",
        "Content-Length: 12",
        body=b'{"case":"l"}' + body,
    )
    yield "a body followed by an empty line", post("followed by an empty line") + b"\r\n"
    yield "a body followed by LF", post("followed by LF") + b"\n"
    line = event("64 KiB", 900)
    for total in (64 * 1024, 64 * 1024 + 1, 2 * 64 * 1024 + 1, 300_000):
        lines = (line + b"\n") * (total // (len(line) + 1))
        yield exactly(
            f"events of {total} bytes",
            "Content-Type: application/x-ndjson",
            f"Content-Length: {total}",
            body=lines + b" " * (total - len(lines)),
        )
    for total in (MAX_EVENT, MAX_EVENT + 1):
        name = f"an event of {total} bytes"
        yield named(name, padding=total - len(event(name)))
    yield exactly(
        "a body of 9 MB that is refused",
        "Content-Type: application/json",
        "Content-Length: 9000000",
        body=b" " * 9_000_000,
    )
    for length in ("200000000", "9" * 15, "9" * 19, "9" * 40, "9" * 4000):
        yield exactly(
            f"length {length[:20]} that is refused at once ({len(length)} digits)",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            body=body,
        )
    yield "a length of 5000 digits", request(f"Content-Length: {'9' * 5000}", body=body)


def transfer_codings() -> Cases:
    body = event("coding")
    length = f"Content-Length: {len(body)}"
    json_type = "Content-Type: application/json"
    for value in (
        "chunked",
        "Chunked",
        " chunked",
        "chunked ",
        "xchunked",
        "chunke",
        "chunked;a=b",
        "chunked,",
        "chunked, chunked",
        "identity, chunked",
        "identity",
        "gzip, chunked",
        "chunked, gzip",
        "",
        '"chunked"',
        "chunked\x00",
        "chunked\x0b",
        "chun\xa0ked",
        "c\xcdhunked",
        "chunked foo",
        "chunked\rX",
        "\u212a",
    ):
        coding = f"Transfer-Encoding: {value.encode().decode('latin-1')}"
        data = chunked(event(f"coding {value!r}"))
        yield f"coding {value!r}", request(json_type, coding, body=data)
        yield f"coding {value!r} behind a length", request(json_type, length, coding, body=data)
        yield f"coding {value!r} before a length", request(coding, json_type, length, body=body)
    for name in (
        "transfer-encoding",
        "Transfer-Encoding ",
        " Transfer-Encoding",
        "Transfer_Encoding",
        "Transfer-Encoding\x00",
        "Transfer-Encodin\xc7",
        "X\rTransfer-Encoding",
        "X: y\nTransfer-Encoding",
    ):
        yield exactly(
            f"coding under the name {name!r}", json_type, f"{name}: chunked", length, body=body
        )
        yield exactly(
            f"coding under the name {name!r}, chunked",
            json_type,
            f"{name}: chunked",
            body=chunked(event("name")),
        )
    for first, second in (
        ("chunked", "chunked"),
        ("chunked", "identity"),
        ("chunked", "x"),
        ("", "chunked"),
    ):
        yield exactly(
            f"coding twice, {first!r} and {second!r}",
            json_type,
            f"Transfer-Encoding: {first}",
            f"Transfer-Encoding: {second}",
            body=chunked(event("twice")),
        )
    for line in ("POST /collect HTTP/1.0", "POST /collect HTTP/1.2"):
        yield exactly(
            f"chunks in {line}",
            json_type,
            "Transfer-Encoding: chunked",
            line=line,
            body=chunked(event("1.0")),
        )
        yield exactly(
            f"chunks in {line} to keep",
            json_type,
            "Transfer-Encoding: chunked",
            "Connection: keep-alive",
            line=line,
            body=chunked(event("1.0")),
        )
    yield exactly(
        "a hidden request behind chunks of a length",
        json_type,
        "Content-Length: 6",
        "Transfer-Encoding: chunked",
        body=b"0\r\n\r\n" + get("/hidden"),
    )
    yield exactly(
        "a hidden request behind a length over chunks",
        json_type,
        "Transfer-Encoding: chunked",
        "Content-Length: 3",
        body=b"8\r\nSMUGGLED\r\n0\r\n\r\n" + get("/hidden"),
    )
    yield exactly(
        "a hidden request in a body on GET",
        f"Content-Length: {len(get('/hidden'))}",
        line="GET /nothing HTTP/1.1",
        body=get("/hidden"),
    )
    yield exactly(
        "a hidden request behind a length of nothing",
        "Content-Length: 0",
        line="GET /nothing HTTP/1.1",
        body=get("/hidden"),
    )


def chunks() -> Cases:
    def send(data: bytes, *more: str, line: str = "POST /collect HTTP/1.1") -> bytes:
        return request(
            "Content-Type: application/json",
            "Transfer-Encoding: chunked",
            *more,
            line=line,
            body=data,
        )

    body = event("chunks")
    size = b"%x" % len(body)
    for name, data in {
        "one chunk": chunked(body),
        "chunks of a byte": chunked(*(body[i : i + 1] for i in range(len(body)))),
        "capital digits": b"%X\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        "zeros before the size": b"000" + chunked(body),
        "many zeros at the end": chunked(body, last=b"0000\r\n\r\n"),
        "no chunk": b"0\r\n\r\n",
        "an extension": chunked(body, extension=b";a"),
        "an extension with a value": chunked(body, extension=b";a=b"),
        "an extension with a quoted value": chunked(body, extension=b';a="b;\\"c"'),
        "an extension with spaces": chunked(body, extension=b" ; a = b"),
        "an empty extension": chunked(body, extension=b";"),
        "an extension with a bare CR": chunked(body, extension=b";a\rb"),
        "an extension with a bare LF": chunked(body, extension=b";a\nb"),
        "an extension that is no token": chunked(body, extension=b";a=(b)"),
        "an extension with a NUL": chunked(body, extension=b";a\x00"),
        "an extension of 9000 bytes": chunked(body, extension=b";" + b"a" * 9000),
        "an extension at the end": chunked(body, last=b"0;a=b\r\n\r\n"),
        "a trailer": chunked(body, last=b"0\r\nX-A: b\r\n\r\n"),
        "trailers": chunked(body, last=b"0\r\nX-A: b\r\nX-B: c\r\n\r\n"),
        "a trailer of the length": chunked(body, last=b"0\r\nContent-Length: 3\r\n\r\n"),
        "a trailer of the coding": chunked(body, last=b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "a trailer of the host": chunked(body, last=b"0\r\nHost: a\r\n\r\n"),
        "a folded trailer": chunked(body, last=b"0\r\nX-A: b\r\n c\r\n\r\n"),
        "a trailer without a colon": chunked(body, last=b"0\r\nX-A\r\n\r\n"),
        "a trailer with LF": chunked(body, last=b"0\r\nX-A: b\n\r\n"),
        "a trailer without an end": chunked(body, last=b"0\r\nX-A: b\r\n"),
        "101 trailers": chunked(body, last=b"0\r\n" + b"X-A: b\r\n" * 101 + b"\r\n"),
        "LF behind the size": size + b"\n" + body + b"\r\n0\r\n\r\n",
        "CR behind the size": size + b"\r" + body + b"\r\n0\r\n\r\n",
        "LF behind the data": size + b"\r\n" + body + b"\n0\r\n\r\n",
        "CR behind the data": size + b"\r\n" + body + b"\r0\r\n\r\n",
        "nothing behind the data": size + b"\r\n" + body + b"0\r\n\r\n",
        "more behind the data": size + b"\r\n" + body + b"xx\r\n0\r\n\r\n",
        "LF at the end": chunked(body, last=b"0\n\n"),
        "LF for the last line": chunked(body, last=b"0\r\n\n"),
        "a space before the size": b" " + chunked(body),
        "a space behind the size": chunked(body, extension=b" "),
        "a tab behind the size": chunked(body, extension=b"\t"),
        "a sign": b"+" + chunked(body),
        "a negative size": b"-" + chunked(body),
        "0x": b"0x" + chunked(body),
        "an underscore": b"0_" + chunked(body),
        "an empty size": b"\r\n" + chunked(body),
        "no size": b";a\r\n\r\n0\r\n\r\n",
        "no hexadecimal digit": b"g\r\n",
        "a size of 100 digits": b"f" * 100 + b"\r\n" + body,
        "a size with a NUL": size + b"\x00\r\n" + body + b"\r\n0\r\n\r\n",
        "a size in other digits": b"\xb2\r\nab\r\n0\r\n\r\n",
        "no last chunk": chunked(body, last=b""),
        "70 KB": chunked(b"[" + b" " * 70_000 + b"{}]"),
        "70 KB of chunks": chunked(b"[", *[b" " * 1000] * 70, b"{}]"),
        "more than is allowed": chunked(*[b" " * 4000] * 50),
        "more than is allowed at once": chunked(b" " * 200_000),
    }.items():
        yield f"chunks: {name}", send(data)
        if len(data) < 1000:
            yield f"unread chunks: {name}", send(data, line="POST /nothing HTTP/1.1")
    for line in (
        "GET /health HTTP/1.1",
        "HEAD /health HTTP/1.1",
        "PUT /collect HTTP/1.1",
        "GET /nothing HTTP/1.1",
    ):
        yield f"chunks on {line}", send(chunked(body), line=line)
    yield "chunks and Connection: close", send(chunked(body), "Connection: close")
    yield (
        "chunks with Trailer and TE",
        send(chunked(body, last=b"0\r\nX-A: b\r\n\r\n"), "Trailer: X-A", "TE: trailers"),
    )


def expectations() -> Cases:
    for value in (
        "100-continue",
        "100-Continue",
        " 100-continue ",
        "100-continue, 100-continue",
        "",
        "100-continue;a=b",
        "\xff",
    ):
        name = f"Expect {value!r}"
        yield named(name, f"Expect: {value}")
        yield named(f"{name} in HTTP/1.0", f"Expect: {value}", line="POST /collect HTTP/1.0")
        yield named(f"{name} on /nothing", f"Expect: {value}", line="POST /nothing HTTP/1.1")
        yield f"{name} on GET", get("/health", f"Expect: {value}")
    yield named("Expect twice", "Expect: 100-continue", "Expect: 100-continue")
    yield exactly(
        "Expect with chunks",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        body=chunked(event("Expect")),
    )
    yield named("Expect and a body too large", "Expect: 100-continue", padding=200_000)
    for line in (
        "TE: trailers",
        "Trailer: X-A",
        "Range: bytes=0-1",
        "If-None-Match: *",
        "Accept: application/xml",
        "Content-Range: bytes 0-1/2",
        "X-HTTP-Method-Override: DELETE",
    ):
        yield named(line, line)


# --- gunicorn's limits


def limits() -> Cases:
    for size in (200, *range(MAX_LINE - 3, MAX_LINE + 4), 70_000):
        spare = size - len("POST /collect? HTTP/1.1")
        name = f"a line of {size} bytes"
        yield named(name, line=f"POST /collect?{'a' * spare} HTTP/1.1")
        yield (
            f"{name} with an empty line first",
            b"\r\n" + post(name, line=f"POST /collect?{'a' * spare} HTTP/1.1"),
        )
        yield named(f"{name} in the path", line=f"POST /collect/{'a' * spare} HTTP/1.1")
    for size in (200, 201, 4000, *range(MAX_FIELD - 3, MAX_FIELD + 3), 60_000):
        for field in ("X-A: ", "User-Agent: ", "X-A:"):
            yield named(
                f"a field {field!r} of {size} bytes with its CRLF",
                field + "b" * (size - 2 - len(field)),
            )
        yield named(f"a field name of {size} bytes with its CRLF", "b" * (size - 5) + ": c")
        yield named(
            f"a field of {size} bytes with its CRLF and spaces", "X-A:" + " " * (size - 7) + "b"
        )
        yield named(
            f"a field of {size} bytes with its CRLF and spaces behind", "X-A:b" + " " * (size - 7)
        )
        yield named(f"a folded field of {size} bytes", "X-A: b\r\n " + "c" * (size - 9))
    for count in (MAX_FIELDS - 1, MAX_FIELDS, MAX_FIELDS + 1, MAX_FIELDS + 2, 1000):
        name = f"{count} fields"
        yield named(name, *(f"X-{i}: {i}" for i in range(count - 3)))
        yield named(f"{name} of one name", *["X-A: b"] * (count - 3))
        yield named(f"{name}, some dropped", *["X_A: b"] * 10, *["X-A: b"] * (count - 13))
        yield f"{name} of short names", get("/health", *["a:"] * (count - 1))
    for total in (5, 8):
        yield named(
            f"{total} fields of 7900 bytes", *(f"X-{i}: {'c' * 7900}" for i in range(total))
        )
    yield named(
        "a head of a million bytes in good fields", *(f"X-{i}: {'c' * 9990}" for i in range(100))
    )
    yield "a line without an end", b"POST /collect?" + b"a" * 9000
    yield "a line without an end or a space", b"a" * 9000
    yield "a field without an end", request("X-A: " + "b" * 900_000)[:-4]
    yield "fields without an end", request(*["X-A: b"] * 150_000)[:-2]


# --- RFC 9112, 9.3: several requests on a connection


def pipelines() -> Cases:
    def several(name: str, count: int) -> bytes:
        return b"".join(post(f"{name} {i}") for i in range(count))

    for count in (2, 3, 4, 5, 40):
        yield f"{count} events", several(f"{count} events", count)
        yield f"{count} questions", get("/health") * count
    yield "GET and POST in turn", (get("/health") + post("in turn")) * 3
    yield "HEAD and GET in turn", (get("/health", method="HEAD") + get("/health")) * 2
    yield "HEAD twice", get("/health", method="HEAD") * 2
    odd = {
        "HTTP/1.0": post("odd 1.0", line="POST /collect HTTP/1.0"),
        "HTTP/1.0 to keep": post(
            "odd 1.0", "Connection: keep-alive", line="POST /collect HTTP/1.0"
        ),
        "Connection: close": post("odd close", "Connection: close"),
        "chunks": request("Transfer-Encoding: chunked", body=chunked(event("odd chunks"))),
        "chunks with trailers": request(
            "Transfer-Encoding: chunked", body=chunked(event("odd"), last=b"0\r\nX-A: b\r\n\r\n")
        ),
        "bad chunks": request("Transfer-Encoding: chunked", body=b"x\r\n"),
        "a bad line": b"nonsense\r\n\r\n",
        "a bare LF": post("odd LF", end=b"\n"),
        "an empty line": b"\r\n",
        "two empty lines": b"\r\n\r\n",
        "an empty line and an event": b"\r\n" + post("odd empty line"),
        "a folded field": post("odd fold", "X-A: b\r\n c"),
        "a repeated field": post("odd repeated", "X-A: b", "X-A: c"),
        "an unread body": post("odd unread", line="PUT /nothing HTTP/1.1"),
        "an unread body of 70 KB": post("odd", line="PUT /nothing HTTP/1.1", padding=70_000),
        "a body too large": post("odd large", padding=200_000),
        "a refused type": request("Content-Type: text/html", "Content-Length: 2", body=b"{}"),
        "Expect": post("odd expect", "Expect: 100-continue"),
        "another Expect": post("odd expect", "Expect: foo"),
        "CONNECT": get("/collect", method="CONNECT"),
        "HEAD": get("/health", method="HEAD"),
        "OPTIONS *": get("*", method="OPTIONS"),
        "absolute-form": post("odd absolute", line="POST http://a/collect HTTP/1.1"),
        "CL and TE": request("Content-Length: 3", "Transfer-Encoding: chunked", body=chunked(b"a")),
        "duplicate CL": request("Content-Length: 2", "Content-Length: 2", body=b"{}"),
        "a length of +2": request("Content-Length: +2", body=b"{}"),
        "a method in lower case": get("/health", method="get"),
        "HTTP/2": get("/health", version="HTTP/2.0"),
        "two hosts": get("/health", "Host: b"),
        "an upgrade": get("/health", "Connection: upgrade", "Upgrade: h2c"),
        "an error of the application": post("odd error", line="POST /error HTTP/1.1"),
        "an error of the application, chunked": request(
            "Transfer-Encoding: chunked", line="POST /error HTTP/1.1", body=chunked(event("error"))
        ),
        "conflicting schemes": post(
            "odd scheme", "X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"
        ),
        "a script name": post("odd script name", "SCRIPT_NAME: /x"),
    }
    for name, data in odd.items():
        yield f"{name} between events", post("before") + data + post("after")
        yield f"{name} behind four events", several("before", 4) + data
        yield f"{name} first", data + several("after", 2)


# --- what is not finished: the server waits, and then the connection ends


def unfinished() -> Cases:
    body = event("unfinished")
    yield "nothing", b""
    yield "an empty line and no more", b"\r\n"
    yield "a CR and no more", b"\r"
    yield "half a line", b"POST /coll"
    yield "a line and no more", b"POST /collect HTTP/1.1\r\n"
    yield "half a head", post("half a head")[:60]
    yield "a head without its last LF", request()[:-1]
    for path in ("/collect", "/nothing"):
        for length in (len(body) + 1, len(body) + 100, 70_000, MAX_BODY):
            yield exactly(
                f"{length - len(body)} bytes too few on {path}",
                "Content-Type: application/json",
                f"Content-Length: {length}",
                line=f"POST {path} HTTP/1.1",
                body=body,
            )
        yield exactly(
            f"no byte of a body on {path}",
            "Content-Type: application/json",
            "Content-Length: 10",
            line=f"POST {path} HTTP/1.1",
        )
        yield exactly(
            f"too few bytes of a body too large on {path}",
            f"Content-Length: {MAX_BODY + 1}",
            line=f"POST {path} HTTP/1.1",
            body=body,
        )
        for data in (
            b"",
            b"5",
            b"5\r",
            b"5\r\n",
            b"5\r\n{",
            b"2\r\n{}",
            b"2\r\n{}\r",
            b"2\r\n{}\r\n",
            b"2\r\n{}\r\n0",
            b"2\r\n{}\r\n0\r\n",
            b"2\r\n{}\r\n0\r\nX: y",
            b"2;",
        ):
            yield exactly(
                f"chunks cut off behind {data!r} on {path}",
                "Transfer-Encoding: chunked",
                line=f"POST {path} HTTP/1.1",
                body=data,
            )
    yield "an event and half of another", post("whole") + post("half")[:90]
    yield "an event and the line of another", post("whole") + b"POST /collect HTTP/1.1\r\n"
    yield "an event and half of another's body", post("whole") + post("half")[:-4]
    yield "Expect and no body", request("Content-Length: 5", "Expect: 100-continue")


_WAITING = (unfinished,)
_FINISHED: tuple[Callable[[], Cases], ...] = (
    regular,
    connections,
    targets,
    request_lines,
    queries,
    line_ends,
    fields,
    forwarded,
    lengths,
    transfer_codings,
    chunks,
    expectations,
    limits,
    pipelines,
)


def all_cases() -> list[Case]:
    """Return the corpus; each name once."""
    found: dict[str, Case] = {}
    for group in (*_FINISHED, *_WAITING):
        for plain_name, data in group():
            name = f"{group.__name__}: {plain_name}"
            assert name not in found or found[name].data == data, f"{name}: two cases"
            found[name] = Case(name, data, waits=group in _WAITING)
    return list(found.values())


def representative() -> list[Case]:
    """Return a few cases to be sent in pieces."""
    return [
        Case("a plain event", post("a plain event", "User-Agent: a/1", "Connection: keep-alive")),
        Case("HTTP/1.0", post("HTTP/1.0", line="POST /collect HTTP/1.0")),
        Case("no body", get("/health", "Accept: */*")),
        Case("an unread body", post("an unread body", line="PUT /nothing?a=b HTTP/1.1")),
        Case(
            "chunks",
            request(
                "Transfer-Encoding: chunked",
                body=chunked(event("chunks"), extension=b";a", last=b"0\r\nX: y\r\n\r\n"),
            ),
        ),
        Case("two events", post("first") + post("second")),
        Case("a plain event and an odd one", post("first") + post("second", "X-A: b", "X-A: c")),
        Case("an empty line first", b"\r\n" + post("an empty line first")),
        Case("a folded field", post("a folded field", "X-A: b\r\n c")),
        Case(
            "CL and TE",
            request("Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        ),
        Case("Expect", post("Expect", "Expect: 100-continue")),
        Case("a query", get("/collect?a=%41&b=c", "Accept: */*")),
    ]
