"""A loop that only the worker that leads runs; replay, recovery, takeover and closing share it."""

import logging
from abc import ABC, abstractmethod

from gevent.event import Event

from estat.disk.leader import Leader
from estat.errors import DiskError
from estat.log import Seldom
from estat.pipeline.admission import Admission


class LeaderLoop(ABC):
    """Takes a turn, waits, and takes the next one, as long as this worker leads."""

    #: How long to wait where a turn does not say so itself: we do not lead, or the disk failed.
    _pause_seconds = 1.0

    #: How long to wait after an error that nobody expects: it may come again at once.
    _pause_after_error_seconds = 1.0

    #: The log event of such an error.
    _error_event: str

    def __init__(self, leader: Leader, admission: Admission) -> None:
        self._leader = leader
        self._admission = admission
        self._seldom = Seldom(logging.getLogger(type(self).__module__))
        self._ending = False
        self._wakeup = Event()

    @abstractmethod
    def turn(self) -> float:
        """Do what is due; return the seconds to wait until the next turn. Raises DiskError."""

    def run(self) -> None:
        """Take turns until ``end``."""
        while not self._ending:
            pause = self._pause_seconds
            try:
                if self._leader.lead():
                    pause = self.turn()
            except DiskError as exc:
                self._admission.failed(exc)
            except Exception:  # noqa: BLE001 - whatever it is, the next turn tries again
                self._seldom.exception(self._error_event)
                pause = self._pause_after_error_seconds
            self._wakeup.wait(pause)
            self._wakeup.clear()

    def nudge(self) -> None:
        """Take the next turn now."""
        self._wakeup.set()

    def end(self) -> None:
        """Make ``run`` return once what is in hand is done."""
        self._ending = True
        self._wakeup.set()
