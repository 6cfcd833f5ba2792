"""DLQ_DIRs as earlier versions had them, made from what this version has left there.

The files in them have the same formats; whose they are was said in another way.
"""

import shutil
from pathlib import Path

AREAS = ("journal", "pending", "expired", "quarantine")


def _own(dlq_dir: Path) -> Path:
    (own,) = (dlq_dir / "servers").iterdir()
    return own


def flat(dlq_dir: Path, _boot: str = "") -> None:
    """One server's files lie in DLQ_DIR itself; its leader holds leader.lock."""
    for area in AREAS:
        if (_own(dlq_dir) / area).exists():
            (_own(dlq_dir) / area).rename(dlq_dir / area)
    (dlq_dir / "leader.lock").touch()
    shutil.rmtree(dlq_dir / "servers")


def with_heartbeat(dlq_dir: Path, boot: str) -> None:
    """A server holds ``lock``, and touches ``heartbeat``, which names its boot."""
    (_own(dlq_dir) / "lock").write_text("")
    (_own(dlq_dir) / "heartbeat").write_text(boot)
    (_own(dlq_dir) / "leader.lock").touch()
