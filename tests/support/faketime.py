"""Wall clocks that are wrong, and step while servers run: libfaketime reads them from a file.

    clock = Clock(path)
    server = serve(**clock.environ)
    clock.set(hours=-3)             from now on all servers with it are three hours behind

Monotonic clocks go on as they are, and times of files are those of the machine.
"""

from datetime import timedelta
from pathlib import Path

_LIBRARIES = ("x86_64", "aarch64")


def library() -> Path | None:
    """Return where libfaketime is installed, if it is."""
    for machine in _LIBRARIES:
        path = Path(f"/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1")
        if path.exists():
            return path
    return None


class Clock:
    """The wall clock of the servers that are started with ``environ``; right at first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set()

    @property
    def environ(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, **offset: float) -> None:
        """Set it ahead, or with a minus behind: ``days``, ``hours``, ``minutes`` …"""
        new = self._path.with_suffix(".new")
        new.write_text(f"{timedelta(**offset).total_seconds():+.0f}")
        new.rename(self._path)
