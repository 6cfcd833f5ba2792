"""Servers whose lease is short, so that a test can wait for its end; volumes that lose locks."""

import shutil
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).with_name("hasty_conf.py")

LEASE_SECONDS = 3


def hasty(**environ: str) -> dict[str, Any]:
    """Return what the fixture ``serve`` starts such a server with."""
    return {"config": CONFIG, "LEASE": str(LEASE_SECONDS), **environ}


def lose_locks(directory: Path) -> None:
    """Let all locks in a directory be free, as a network volume does with those of a lost host.

    The server's own goes last: with it others take over what is left.
    """
    locked = [*directory.rglob("*.gz"), *directory.rglob("*lock")]
    for path in sorted(locked, key=lambda path: (-len(path.parts), path.name)):
        lost = path.with_suffix(".lost")
        shutil.copy2(path, lost)
        lost.rename(path)
