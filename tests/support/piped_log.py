"""A server whose log goes through a pipe that is read, or is not."""

import fcntl
import os
import select
import threading
from typing import IO

from tests.support.server import Server

_PIPE_BYTES = 4096
_LOOK_SECONDS = 0.05


class PipedServer(Server):
    """Reads the log until it is told not to; what was read is in ``logs()``."""

    def _open_log(self) -> IO[bytes]:
        self._pipe, end = os.pipe()
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._reads, self._turn = True, threading.Lock()
        # not blocking, and of its own: the server's end stays as it is
        self._filler = os.open(f"/proc/self/fd/{end}", os.O_WRONLY | os.O_NONBLOCK)
        threading.Thread(target=self._copy, daemon=True).start()
        return os.fdopen(end, "wb")

    def stop_reading(self) -> None:
        """Leave the pipe alone, and full."""
        with self._turn:
            self._reads = False
        for size in (_PIPE_BYTES, 1):
            try:
                while True:
                    os.write(self._filler, b"\n" * size)
            except BlockingIOError:
                pass

    def read_on(self) -> None:
        with self._turn:
            self._reads = True

    def _copy(self) -> None:
        with self._log.open("wb", buffering=0) as log:
            while True:
                readable, _, _ = select.select([self._pipe], [], [], _LOOK_SECONDS)
                with self._turn:
                    if readable and self._reads:
                        log.write(os.read(self._pipe, _PIPE_BYTES))
                if not self._reads:
                    threading.Event().wait(_LOOK_SECONDS)
