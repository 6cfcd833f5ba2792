"""Gives others their turn: whoever reads on and on stops after each piece.

A greenlet that always finds bytes in its socket never waits, so that nobody else
runs and no deadline fires, its own included.
"""

from typing import Any

import gevent

#: No time at all, but a turn of the event loop: a sleep of 0 comes back before I/O is looked at.
_TURN_SECONDS = 1e-6


def give_turn() -> None:
    """Let everyone who is ready run before this greenlet goes on."""
    gevent.sleep(_TURN_SECONDS)


class FairSocket:
    """A socket that gives a turn before it reads."""

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
