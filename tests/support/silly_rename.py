"""What NFS does with a file that is removed while it is open: it stays until it is closed.

Its client gives it another name in the same directory (a silly rename, .nfs…), so until the
close the directory is not empty, and removing that name fails.
"""

import errno
import os
from typing import Any

import pytest

_DESCRIPTORS = "/proc/self/fd"


class SillyRename:
    """Lets this process's ``os.unlink`` and ``os.close`` work so, while the patch lasts."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._renamed: dict[int, str] = {}  # by descriptor
        self._unlink, self._close = os.unlink, os.close
        patch.setattr(os, "unlink", self._remove)
        patch.setattr(os, "close", self._closed)

    def _remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        whole = os.path.join(os.readlink(f"{_DESCRIPTORS}/{dir_fd}"), path) if dir_fd else str(path)
        descriptor = _open_as(whole)
        if descriptor is None:
            self._unlink(whole)
            return
        if descriptor in self._renamed:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), whole)
        silly = os.path.join(os.path.dirname(whole), f".nfs{descriptor:08d}")
        os.rename(whole, silly)
        self._renamed[descriptor] = silly

    def _closed(self, descriptor: int) -> None:
        self._close(descriptor)
        silly = self._renamed.pop(descriptor, None)
        if silly:
            self._unlink(silly)


def _open_as(path: str) -> int | None:
    """Return the descriptor under which this process has a file open."""
    wanted = os.stat(path)
    for name in os.listdir(_DESCRIPTORS):
        try:
            if os.path.samestat(os.stat(f"{_DESCRIPTORS}/{name}"), wanted):
                return int(name)
        except FileNotFoundError:
            continue  # the listing's own
    return None
