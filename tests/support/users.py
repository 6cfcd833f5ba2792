"""Servers that run as other users than the tests, on volumes that say otherwise whose files are."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import Server

# $1: where Python lies, $2: the first directory on the way there. Where not everybody may pass
# through that, Python is all that is to be seen of it.
_OPEN_WAY = """
set -e
python=$1 top=$2; shift 2
if [ "$top" ]; then
    hold=$(mktemp -d)
    mount --bind "$python" "$hold"
    mount -t tmpfs -o mode=755 none "$top"
    mkdir -p "$python"
    mount --bind "$hold" "$python"
fi
exec "$@"
"""


class OfUser(Server):
    """One start of the server as a user of its own, with one group more, maybe."""

    def __init__(
        self, directory: Path, settings: Mapping[str, str], user: int, *, group: int = 0
    ) -> None:
        super().__init__(directory, {"HOME": str(directory), **settings})
        self.user = user
        self._group = group

    def _command(self) -> list[str]:
        user = str(self.user)
        groups = f"--groups={self._group}" if self._group else "--clear-groups"
        python = Path(sys.base_prefix)
        way = [*[*python.parents][-2::-1], python]
        closed = any(not path.stat().st_mode & stat.S_IXOTH for path in way)
        top = str(way[0]) if closed else ""
        setpriv = ["setpriv", f"--reuid={user}", f"--regid={user}", groups]
        shell = ["unshare", "--mount", "sh", "-c", _OPEN_WAY, "sh", str(python), top]
        return [*shell, *setpriv, *super()._command()]


@contextmanager
def squashed(directory: Path, *options: str) -> Iterator[None]:
    """Mount a directory over itself, by bindfs(1), so that it says otherwise whose files are."""
    command = ["bindfs", *options, "-o", "nonempty", directory, directory]
    subprocess.run(command, check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def owners(*directories: Path) -> set[int]:
    """Return whose everything in some directories is."""
    return {os.lstat(path).st_uid for each in directories for path in each.rglob("*")}
