"""A program that fetches credentials once; ``s3_credentials`` runs it.

Whatever botocore does for credentials may hang: a helper, a file on a volume that is gone, a
name server, an endpoint. In a process of its own all of it can be ended, and holds up nobody.

    s3_credentials   writes the request, a line of JSON, to stdin, and keeps stdin open
      supervisor     ends the fetcher at the deadline, and when stdin ends: nobody waits any more
        fetcher      asks botocore (``s3_sources``); leads a process group of its own
          helper     what a profile names as its credential_process

The supervisor imports nothing but the standard library: it is small, and its clock runs from the
start. It is run as a file, so it finds the package where the asker does.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_REAP_SECONDS = 1.0  # for what was killed, and may hang in the kernel


def main() -> None:
    """Supervise one fetch."""
    request = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not request:
        return
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a helper leaves behind is ours to reap
    ended, running = os.pipe()
    fetcher = os.fork()
    if not fetcher:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.path[:] = request["path"]
        from estat.stores import s3_sources  # noqa: PLC0415 - by the fetcher alone

        s3_sources.tell(request)
        os._exit(0)
    os.close(running)
    heard, _, _ = select.select([0, ended], [], [], request["limit_seconds"])
    if ended not in heard:
        _kill(fetcher)
    if not heard:
        text = f"no answer within {request['limit_seconds']:g}s"
        os.write(1, json.dumps({"text": text, "busy": True}).encode() + b"\n")


def _kill(fetcher: int) -> None:
    """Kill the fetcher with its group, and reap what that leaves."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError):
            kill(fetcher, signal.SIGKILL)
    until = time.monotonic() + _REAP_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _prctl(option: int, value: int) -> None:
    """Call prctl. Where it is missing, init reaps, and a kill -9 may leave a helper."""
    with contextlib.suppress(ImportError, OSError, MemoryError):
        import ctypes  # noqa: PLC0415 - not everywhere

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
