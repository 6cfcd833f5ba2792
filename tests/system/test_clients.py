"""Clients that people use: every event that one was told is accepted is stored once."""

import base64
import gzip
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import requests

from tests.conftest import need
from tests.support.server import Server

_SECONDS = 60
#: Bodies that a client sends one after the other.
BODIES = 5

#: Sends what it is given on standard input, and writes the statuses.
_NODE = """
const {url, bodies, headers, keep, chunked} = JSON.parse(require("fs").readFileSync(0));
(async () => {
  const statuses = [];
  for (const text of bodies) {
    const bytes = Buffer.from(text, "base64");
    const body = chunked ? new ReadableStream({
      start(out) {
        for (let at = 0; at < bytes.length; at += 7) out.enqueue(bytes.subarray(at, at + 7));
        out.close();
      },
    }) : bytes;
    if (!keep) headers.Connection = "close";
    const answer = await fetch(url, {method: "POST", body, headers, duplex: "half"});
    await answer.text();
    statuses.push(answer.status);
  }
  console.log(JSON.stringify(statuses));
})();
"""

#: A client: sends bodies one after the other, and returns the statuses.
Send = Callable[[str, list[bytes], dict[str, str], bool, bool], list[int]]


def pieces(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), 7):
        yield body[at : at + 7]


def by_curl(
    url: str, bodies: list[bytes], headers: dict[str, str], keep: bool, chunked: bool
) -> list[int]:
    need(shutil.which("curl"), "curl")
    if not keep:
        return [
            status
            for body in bodies
            for status in _curl(url, [body], headers | {"Connection": "close"}, chunked)
        ]
    return _curl(url, bodies, headers, chunked)


def _curl(url: str, bodies: list[bytes], headers: dict[str, str], chunked: bool) -> list[int]:
    """Send all in one call: curl keeps the connection as long as it runs."""
    if chunked:
        headers = headers | {"Transfer-Encoding": "chunked"}
    with TemporaryDirectory() as scratch:  # standard input can be read once
        return _run_curl(url, bodies, headers, Path(scratch))


def _run_curl(url: str, bodies: list[bytes], headers: dict[str, str], scratch: Path) -> list[int]:
    fields = [part for name in headers for part in ("-H", f"{name}: {headers[name]}")]
    arguments: list[str] = []
    for number, body in enumerate(bodies):
        file = scratch / f"{number}.body"
        file.write_bytes(body)
        one = ["-sS", "-o", "/dev/null", "-w", "%{http_code}\\n", *fields]
        arguments += ["--next"] * bool(number) + [*one, "--data-binary", f"@{file}", url]
    done = subprocess.run(
        ["curl", *arguments], capture_output=True, check=True, timeout=_SECONDS, text=True
    )
    return [int(line) for line in done.stdout.split()]


def by_requests(
    url: str, bodies: list[bytes], headers: dict[str, str], keep: bool, chunked: bool
) -> list[int]:
    with requests.Session() as session:
        session.trust_env = False
        send = session.post if keep else requests.post
        fields = headers if keep else headers | {"Connection": "close"}
        return [
            send(
                url, data=pieces(body) if chunked else body, headers=fields, timeout=_SECONDS
            ).status_code
            for body in bodies
        ]


def by_httpx(
    url: str, bodies: list[bytes], headers: dict[str, str], keep: bool, chunked: bool
) -> list[int]:
    limits = httpx.Limits(max_keepalive_connections=1 if keep else 0)
    with httpx.Client(limits=limits, trust_env=False, timeout=_SECONDS) as client:
        return [
            client.post(url, content=pieces(body) if chunked else body, headers=headers).status_code
            for body in bodies
        ]


def by_node(
    url: str, bodies: list[bytes], headers: dict[str, str], keep: bool, chunked: bool
) -> list[int]:
    need(shutil.which("node"), "node")
    asked = {
        "url": url,
        "bodies": [base64.b64encode(body).decode() for body in bodies],
        "headers": headers,
        "keep": keep,
        "chunked": chunked,
    }
    done = subprocess.run(
        ["node", "-e", _NODE],
        input=json.dumps(asked),
        capture_output=True,
        check=True,
        timeout=_SECONDS,
        text=True,
    )
    statuses: list[int] = json.loads(done.stdout)
    return statuses


CLIENTS: list[Send] = [by_curl, by_requests, by_httpx, by_node]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("clients")
    settings = {"RAW_BUCKET": f"file:{directory / 'store'}", "FLUSH_INTERVAL": "20ms"}
    with Server(directory, settings) as running:
        yield running


def stored(server: Server) -> Counter[str]:
    """Return how often each event is stored, by its name."""
    return Counter(line["body"]["n"] for line in server.stored())


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("keep", [False, True], ids=["close", "keep-alive"])
@pytest.mark.parametrize("send", CLIENTS, ids=[send.__name__ for send in CLIENTS])
def test_every_event_that_a_client_was_told_is_accepted_is_stored_once(
    send: Send, keep: bool, chunked: bool, compressed: bool, server: Server
) -> None:
    names = [f"{send.__name__}-{keep}-{chunked}-{compressed}-{i}" for i in range(2 * BODIES)]
    lines = [json.dumps({"n": name}).encode() for name in names]
    bodies = [b"\n".join(lines[at : at + 2]) for at in range(0, len(lines), 2)]
    headers = {"Content-Type": "application/x-ndjson"}
    if compressed:
        bodies = list(map(gzip.compress, bodies))
        headers["Content-Encoding"] = "gzip"
    assert send(f"{server.url}/collect", bodies, headers, keep, chunked) == [202] * BODIES
    found = stored(server)
    assert [found[name] for name in names] == [1] * len(names)


def test_every_query_that_a_client_was_told_is_accepted_is_stored_once(server: Server) -> None:
    with requests.Session() as session, httpx.Client(trust_env=False, timeout=_SECONDS) as client:
        session.trust_env = False
        for path in ("/collect", "/collect.gif"):
            for get in (session.get, client.get):
                name = f"{get.__module__} {path} é+&"
                assert get(f"{server.url}{path}", params={"n": name}).status_code in (200, 204)
                assert stored(server)[name] == 1
