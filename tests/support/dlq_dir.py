"""A DLQ directory as an operator sees it: with ls and zcat."""

import gzip
import json
from pathlib import Path
from typing import Any

from tests.support.lines import parse_lines


class DlqFile:
    """One file, read with nothing but gzip and JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path
        about, _, events = gzip.decompress(path.read_bytes()).partition(b"\n")
        self.about: dict[str, Any] = json.loads(about)
        #: Empty for a stream's record, which is no event.
        self.lines = parse_lines(events) if self.about["events"] else []


def server_dirs(root: Path) -> list[Path]:
    """Return the directories of the servers in DLQ_DIR, the newest last."""
    servers = root / "servers"
    return sorted(servers.iterdir()) if servers.is_dir() else []


def dlq_paths(root: Path, area: str = "pending") -> list[Path]:
    """Return the files of an area, oldest slot first, without what is half written.

    They are those of all servers in DLQ_DIR, or of one server's directory.
    """
    return sorted(
        path
        for queue in (root, *server_dirs(root))
        for path in (queue / area).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def dlq_files(root: Path, area: str = "pending") -> list[DlqFile]:
    return [DlqFile(path) for path in dlq_paths(root, area)]


def events_on_disk(root: Path) -> list[dict[str, Any]]:
    """Return every event that lies in the DLQ."""
    files = dlq_files(root, "pending") + dlq_files(root, "expired")
    return [line for file in files for line in file.lines]
