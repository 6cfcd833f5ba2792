"""The floor: a bare gevent server that receives bytes and sends bytes, and looks at none.

``python -m bench.echo PORT``. The answer is a fixed one, as long as estat's, for
what one ``recv`` gives: on the loopback that is one request of one event. No
server of this kind in Python can cost less.
"""

import signal
import socket
import sys

from gevent.server import StreamServer

_MOST_BYTES = 64 * 1024
_BACKLOG = 2048

ANSWER = (
    b"HTTP/1.1 202 Accepted\r\n"
    b"Server: gunicorn\r\n"
    b"Date: Thu, 13 Nov 2025 07:00:00 GMT\r\n"
    b"Connection: keep-alive\r\n"
    b"content-type: application/json\r\n"
    b"content-length: 14\r\n"
    b"\r\n"
    b'{"accepted":1}'
)


def serve(connection: socket.socket, _: object) -> None:
    """Answer until the other side hangs up."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while connection.recv(_MOST_BYTES):
        connection.sendall(ANSWER)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as gunicorn ends
    StreamServer(("127.0.0.1", int(sys.argv[1])), serve, backlog=_BACKLOG).serve_forever()
