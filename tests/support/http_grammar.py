"""Requests by a grammar that is a little wider than HTTP's: regular, odd, and in between.

Hypothesis strategies of bytes. Most parts of most requests are regular: a server that
refuses a request ends the connection, and shows nothing of what it would do next.
"""

import string

from hypothesis import strategies as st

from tests.support.http_corpus import chunked, event, get

_TOKEN = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
_IN_TARGETS = string.ascii_letters + string.digits + "/?#%&=+.,:;@!~*'()[]\\|-_ "

#: Any byte, but rarely the ones that end a line.
_anything = st.text(st.characters(max_codepoint=0xFF), max_size=12)


def _mostly(*usual: str, otherwise: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw what is usual, and one time in sixteen something else."""
    return st.integers(0, 15).flatmap(
        lambda chance: otherwise if chance == 15 else st.sampled_from(usual)
    )


_methods = _mostly(
    "POST",
    "POST",
    "POST",
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    otherwise=st.sampled_from(["PATCH", "TRACE", "CONNECT", "QUERY", "GE", "post"])
    | st.text(_TOKEN, min_size=1, max_size=22),
)
_targets = _mostly(
    "/collect",
    "/collect",
    "/environ",
    "/environ?a=b&c=%20",
    "/environ/a//b",
    "/health",
    "/nothing",
    otherwise=st.sampled_from(["/error", "/collect/", "*", "//", "http://a/environ", "/metrics"])
    | st.text(_IN_TARGETS, max_size=12).map(lambda text: f"/environ{text}")
    | st.text(_IN_TARGETS, max_size=12),
)
_versions = _mostly(
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    otherwise=st.sampled_from(["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 "]),
)
_ends = _mostly(
    "\r\n", "\r\n", "\r\n", otherwise=st.sampled_from(["\n", "\r", "\r\r\n", "\n\r\n", " \r\n", ""])
)

_names = _mostly(
    "Connection",
    "Content-Type",
    "User-Agent",
    "X-A",
    "x-b",
    "X-Forwarded-For",
    "Accept",
    "COOKIE",
    otherwise=st.sampled_from(
        [
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Expect",
            "TE",
            "Trailer",
            "Upgrade",
            "HTTP2-Settings",
            "Keep-Alive",
            "X-Forwarded-Proto",
            "X-Forwarded-Ssl",
            "X-Forwarded-Protocol",
            "Content-Encoding",
            "Cookie",
            "X_A",
            "Content_Length",
            "SCRIPT_NAME",
            "Script-Name",
            "PATH_INFO",
            "Proxy",
            "Origin",
            "Authorization",
            "Referer",
            "Content-Length ",
            " X-A",
            "Connection\t",
        ]
    )
    | st.text(_TOKEN, min_size=1, max_size=9)
    | _anything,
)
_values = _mostly(
    "",
    "a",
    "close",
    "keep-alive",
    "Keep-Alive",
    "application/json",
    "0",
    "http",
    "1.2.3.4, 5.6.7.8",
    otherwise=st.sampled_from(
        [
            "https",
            "on",
            "chunked",
            "100-continue",
            "identity",
            "gzip",
            "close, keep-alive",
            "upgrade",
            "h2c",
            "application/x-ndjson",
            "text/html",
            "trailers",
            "2",
            "7",
            "+2",
            "02",
            " 2 ",
            "9" * 20,
        ]
    )
    | _anything,
)
_spaces = _mostly(" ", " ", "", otherwise=st.text(" \t", max_size=3))
_fields = st.tuples(_names, st.just(":"), _spaces, _values, _spaces).map("".join)

_bodies = st.one_of(
    st.sampled_from([event("grammar"), b"", b"{}", b"[{},{}]", b"{}\n{}", b"{", get("/")]),
    st.binary(max_size=20),
    # about what is read at a time, by gunicorn and by the fast loop, and about the limits
    st.sampled_from([8000, 8190, 16_382, 16_383, 65_534, 65_535, 131_070, 131_071, 200_000]).map(
        lambda spaces: b"[" + b" " * spaces + b"]"
    ),
)
_framings = _mostly(
    "length", "length", "none", "chunks", otherwise=st.sampled_from(["wrong", "both"])
)


@st.composite
def _framed(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """Return the fields that tell how long a body is, and the body as it is sent."""
    body = draw(_bodies)
    kind = draw(_framings)
    if kind == "none":
        return [], b""
    length = f"Content-Length: {len(body) if kind != 'wrong' else draw(st.integers(-1, 90))}"
    if kind in {"length", "wrong"}:
        return [length], body
    cut = draw(st.integers(0, len(body)))
    pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
    last = draw(
        _mostly(
            "0\r\n\r\n",
            "0\r\nX-T: a\r\n\r\n",
            "000;a=b\r\n\r\n",
            otherwise=st.sampled_from(["", "0\r\n"]),
        )
    )
    data = chunked(*pieces, last=last.encode())
    return ["Transfer-Encoding: chunked"] + [length] * (kind == "both"), data


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a request, or what is none."""
    framing, body = draw(_framed())
    others = draw(st.lists(_fields, max_size=4))
    host = draw(st.sampled_from([["Host: a"], ["Host: a"], ["Host: a"], []]))
    fields = draw(st.permutations(host + framing + others)) if others else host + framing
    line = " ".join([draw(_methods), draw(_targets), draw(_versions)])
    # all lines end alike, but for one at the most
    ends = ["\r\n"] * (len(fields) + 2)
    ends[draw(st.integers(0, len(fields) + 1))] = draw(_ends)
    head = "".join(text + end for text, end in zip([line, *fields, ""], ends, strict=True))
    return head.encode("latin-1") + body
