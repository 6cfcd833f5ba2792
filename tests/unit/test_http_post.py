"""What is certain about a request that fails, on real connections."""

import select
import socket
import threading

import pytest

from estat.cli.http_post import Connection, NotSentError, Request, Target, UnreachableError
from tests.support.counterpart import Counterpart, Got, Handler, accept

_DEADLINE_SECONDS = 10
_SMALL = Request(b"{}", (("Content-Type", b"application/json"),), 1)

#: More than all socket buffers on the way hold, so it can't be sent to one who doesn't read.
_LARGE = _SMALL._replace(body=b"x" * (64 * 1024 * 1024))


def _accept_and_close(handler: Handler, got: Got) -> None:
    """Close after an answer that promised to stay, as an idle timeout does."""
    accept(handler, got)
    handler.close_connection = True


def test_a_connection_that_the_server_closed_while_idle_is_replaced_before_sending() -> None:
    with Counterpart() as server, server.serving():
        server.plays = [_accept_and_close]
        connection = Connection(Target.from_url(server.url), _DEADLINE_SECONDS)
        try:
            assert connection.post(_SMALL).status == 202
            assert select.select([connection._http.sock], [], [], _DEADLINE_SECONDS)[0]
            assert connection.post(_SMALL).status == 202
        finally:
            connection.close()
        assert len({got.connection for got in server.requests}) == 2


def test_a_connection_is_used_again() -> None:
    with Counterpart() as server, server.serving():
        connection = Connection(Target.from_url(server.url), _DEADLINE_SECONDS)
        try:
            for _ in range(3):
                assert connection.post(_SMALL).status == 202
        finally:
            connection.close()
        assert len({got.connection for got in server.requests}) == 1


def test_a_request_that_could_not_be_sent_whole_is_known_to_be_unsent() -> None:
    def cut_off(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=cut_off, args=[listener])
        thread.start()
        target = Target.from_url(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        connection = Connection(target, _DEADLINE_SECONDS)
        try:
            with pytest.raises(NotSentError, match="sending failed"):
                connection.post(_LARGE)
        finally:
            connection.close()
            thread.join()


def test_a_refused_connection_is_told_from_one_that_broke() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnreachableError, match="Connection refused"):
        Connection(Target.from_url(f"http://127.0.0.1:{port}/"), _DEADLINE_SECONDS).post(_SMALL)


def test_a_2xx_whose_body_breaks_off_keeps_its_status() -> None:
    def break_off(handler: Handler, _: Got) -> None:
        handler.send_response(202)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b'{"accepted"')
        handler.close_connection = True

    with Counterpart() as server, server.serving():
        server.plays = [break_off]
        connection = Connection(Target.from_url(server.url), _DEADLINE_SECONDS)
        try:
            answer = connection.post(_SMALL)
            assert (answer.status, answer.body) == (202, None)
            assert connection.post(_SMALL).status == 202
        finally:
            connection.close()


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.com", Target(False, "example.com", 80, "/")),
        ("https://example.com/c?key=1", Target(True, "example.com", 443, "/c?key=1")),
        ("http://[2001:db8::1]:8080/c", Target(False, "2001:db8::1", 8080, "/c")),
    ],
)
def test_a_url_says_where_requests_go(url: str, target: Target) -> None:
    assert Target.from_url(url) == target
