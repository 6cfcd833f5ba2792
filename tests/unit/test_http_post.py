"""What is certain about a request that fails, on real connections."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from urllib.parse import urlsplit

import pytest

from estat.cli.send_pool import Connection
from estat.cli.send_tally import Request
from tests.support.counterpart import Counterpart, Got, Handler, Play, accept

Connect = Callable[..., Connection]

_DEADLINE_SECONDS = 10
_SMALL = Request(b"{}", {"Content-Type": b"application/json"}, [1])

#: More than all socket buffers on the way hold, so it can't be sent to one who doesn't read.
_LARGE = _SMALL._replace(body=b"x" * (64 * 1024 * 1024))


@pytest.fixture
def connect(server: Counterpart) -> Iterator[Connect]:
    """Return connections to the server, or another one, which are closed at the end."""
    with ExitStack() as opened:

        def connection(url: str = server.url) -> Connection:
            return opened.enter_context(closing(Connection(urlsplit(url), _DEADLINE_SECONDS)))

        yield connection


def _status(connection: Connection) -> int:
    answer = connection.post(_SMALL)
    assert answer.fate == "answered", answer
    return answer.status


def _accept_and_close(handler: Handler, got: Got) -> None:
    """Close after an answer that promised to stay, as an idle timeout does."""
    accept(handler, got)
    handler.close_connection = True


def test_a_connection_that_the_server_closed_while_idle_is_replaced_before_sending(
    server: Counterpart, connect: Connect
) -> None:
    server.plays = [_accept_and_close]
    connection = connect()
    assert _status(connection) == 202
    assert select.select([connection._http.sock], [], [], _DEADLINE_SECONDS)[0]
    assert _status(connection) == 202
    assert len({got.connection for got in server.requests}) == 2


def test_a_request_that_could_not_be_sent_whole_is_known_to_be_unsent(connect: Connect) -> None:
    def cut_off(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=cut_off, args=[listener])
        thread.start()
        outcome = connect(f"http://127.0.0.1:{listener.getsockname()[1]}/").post(_LARGE)
        thread.join()
    assert (outcome.fate, outcome.unreachable) == ("unsent", False)
    assert outcome.reason.startswith("sending failed: ")


def _break_off(handler: Handler, _: Got) -> None:
    handler.send_response(202)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"accepted"')
    handler.close_connection = True


def _go_on(handler: Handler, _: Got, length: str = "") -> None:
    handler.send_response(202)
    if length:
        handler.send_header("Content-Length", length)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(bytes(2**16))
    handler.close_connection = True


@pytest.mark.parametrize("play", [_break_off, _go_on, partial(_go_on, length="9999999999")])
def test_a_2xx_whose_body_breaks_off_or_has_no_end_keeps_its_status(
    play: Play, server: Counterpart, connect: Connect
) -> None:
    server.plays = [play]
    connection = connect()
    answer = connection.post(_SMALL)
    assert (answer.fate, answer.status, answer.body) == ("answered", 202, None)
    assert _status(connection) == 202


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://example.com", "example.com", 80, "/"),
        ("https://example.com/c?key=1", "example.com", 443, "/c?key=1"),
        ("http://[2001:db8::1]:8080/c", "2001:db8::1", 8080, "/c"),
    ],
)
def test_a_url_says_where_requests_go(
    url: str, host: str, port: int, path: str, connect: Connect
) -> None:
    connection = connect(url)
    assert (connection._http.host, connection._http.port, connection._path) == (host, port, path)
