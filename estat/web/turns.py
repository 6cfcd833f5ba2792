"""Gives other greenlets their turn between two reads.

A greenlet that always finds bytes in its socket never waits. Then no other greenlet runs,
and no deadline fires, its own included.
"""

from typing import Any

import gevent

#: Hardly any time, but a whole turn of the event loop: a sleep of 0 ends before I/O is looked at.
_TURN_SECONDS = 1e-6


def give_turn() -> None:
    """Let all greenlets that are ready run before this one goes on."""
    gevent.sleep(_TURN_SECONDS)


class FairSocket:
    """A socket that gives others their turn before each read."""

    __slots__ = ("_client",)

    def __init__(self, client: Any) -> None:
        self._client = client

    def recv(self, size: int) -> bytes:
        """Read as a socket does."""
        give_turn()
        received: bytes = self._client.recv(size)
        return received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)
