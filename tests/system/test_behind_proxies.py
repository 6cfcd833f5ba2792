"""What the documented proxies let through, and what their fields do to a request: nothing."""

import socket
from collections.abc import Iterator

import pytest

from tests.conftest import need
from tests.support.haproxy import Haproxy, haproxy_path
from tests.support.nginx import nginx, nginx_path
from tests.support.server import Server

_SECONDS = 20

#: Spellings of what is not public, and of what is no path at all.
PRIVATE = [
    f"{before}{path}{behind}"
    for path in ("/metrics", "/ready", "/health", "/openapi.json", "/demo", "/")
    for before, behind in (("", ""), ("/", ""), ("/.", ""), ("/x/..", ""), ("", ";x"), ("", "/"))
] + [
    "/%6detrics",
    "/%6Detrics",
    "/METRICS",
    "/metrics%00",
    "/metrics%2f",
    "/metrics?/collect",
    "/metrics#/collect",
    "/collect/../metrics",
    "/collect/%2e%2e/metrics",
    "/collect/..%2fmetrics",
    "/collect%2f..%2fmetrics",
    "/collect/..;/metrics",
    "/collect//../metrics",
    "/collect/.%2e/.%2E/metrics",
    "/collect\\..\\metrics",
    "/collectx/../metrics",
    "/%2fmetrics",
    "/.%2fmetrics",
    "/%252e/metrics",
    "http://x/metrics",
    "http://x//metrics",
    "http://x/collect/../metrics",
    "http://collect/metrics?/collect",
    "http://u:p@/collect@x/metrics",
    "http:///metrics",
    "https://x/%6detrics",
    "//x/metrics",
    "///metrics",
    "*",
    "metrics",
    "x:80",
]

PUBLIC = ["/collect?a=1", "/collect.gif?a=1", "/estat.js", "http://x/collect?a=1"]

#: What proxies tell of the scheme and the path, and what contradicts itself.
FIELDS = [
    "SCRIPT_NAME: /x",
    "Script-Name: /x",
    "X-Script-Name: /x",
    "PATH_INFO: /metrics",
    "X-Forwarded-Prefix: /x",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Proto: nonsense",
    "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off",
    "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https",
    "X-Forwarded-Protocol: ssl\r\nX-Forwarded-Proto: http",
    "X-Forwarded-Host: a b",
    "X-Forwarded-Port: 99999999",
    "X-Forwarded-For: \xff, [",
    "Forwarded: proto=https;host=[",
    "Front-End-Https: on",
    "X-Original-URL: /metrics",
    "X-Rewrite-URL: /metrics",
    "X-HTTP-Method-Override: DELETE",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("behind")
    with Server(directory, {"RAW_BUCKET": f"file:{directory / 'store'}"}) as found:
        yield found


@pytest.fixture(scope="module", params=["haproxy", "nginx"])
def proxy(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "nginx":
        need(nginx_path(), "nginx")
        with nginx(directory, server.port) as port:
            yield port
    else:
        need(haproxy_path(), "haproxy")
        with Haproxy(directory, {"estat1": server.port}, 0.2, "60s") as balancer:
            balancer.await_state("estat1", "UP")
            yield balancer.port


def answer(port: int, request: str) -> bytes:
    """Return all that comes for a request, until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
        connection.sendall(request.encode("latin-1"))
        return b"".join(iter(lambda: connection.recv(65536), b""))


def ask(port: int, method: str, target: str, fields: str = "X-Nothing: 1") -> tuple[int, bytes]:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n\r\n"
    found = answer(port, head)
    return int(found.split(b" ", 2)[1]), found


@pytest.mark.parametrize("target", PRIVATE)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_what_is_private_stays_inside_however_it_is_spelt(
    proxy: int, target: str, method: str
) -> None:
    status, found = ask(proxy, method, target)
    # what is below /collect/ for the server, too, is the intake's, which answers every preflight
    is_intakes = method == "OPTIONS" and target.startswith("/collect/") and status == 204
    assert status in (400, 404) or is_intakes, found
    assert b"http_requests_total" not in found


@pytest.mark.parametrize("target", PUBLIC)
def test_what_is_public_is_served(proxy: int, target: str) -> None:
    status, found = ask(proxy, "GET", target)
    assert status in (200, 204), found


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.quick
def test_a_field_of_a_proxy_neither_moves_a_request_nor_gets_it_refused(
    server: Server, field: str
) -> None:
    # with a second field twice in the head it is gunicorn's loop that serves it
    for more in ("", "\r\nX-Twice: 1\r\nX-Twice: 2"):
        assert ask(server.port, "GET", "/health", field + more)[0] == 200
        assert ask(server.port, "GET", "/x/health", field + more)[0] == 404
        assert ask(server.port, "GET", "/collect?a=1", field + more)[0] == 204
