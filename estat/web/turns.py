"""Gives other greenlets their turn between two reads, and bounds what waits for a client.

A greenlet that always finds bytes in its socket never waits. Then no other greenlet runs,
and no deadline fires, its own included.
"""

import errno
import time
from typing import Any

import gevent
from gevent.hub import get_hub

#: Hardly any time, but a whole turn of the event loop: a sleep of 0 ends before I/O is looked at.
_TURN_SECONDS = 1e-6

#: How long a greenlet may run before it gives others their turn.
_LONG_SECONDS = 0.002


def give_turn() -> None:
    """Let all greenlets that are ready run before this one goes on."""
    gevent.sleep(_TURN_SECONDS)


def give_turn_if_due() -> None:
    """Let the others run if they have waited for long."""
    if time.time() - get_hub().loop.now() > _LONG_SECONDS:  # since the loop looked at I/O
        give_turn()


class FairSocket:
    """A socket that gives others their turn before each read.

    A client has ``send_seconds`` to take what is sent to it at a time.
    """

    __slots__ = ("_client", "_send_seconds")

    def __init__(self, client: Any, send_seconds: float) -> None:
        self._client = client
        self._send_seconds = send_seconds

    def recv(self, size: int) -> bytes:
        """Read as a socket does."""
        give_turn()
        received: bytes = self._client.recv(size)
        return received

    def sendall(self, data: bytes) -> None:
        """Send all. Raises ConnectionResetError if the client does not take it in time."""
        with gevent.Timeout(self._send_seconds, ConnectionResetError(errno.ECONNRESET, "late")):
            self._client.sendall(data)

    def send(self, data: bytes) -> int:
        """Send all, as ``sendall`` does; return how much that is."""
        self.sendall(data)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)
