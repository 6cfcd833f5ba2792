"""What lies in the files of a test: each event's id, and the number in its body."""

import gzip
import json
import os
from collections.abc import Iterator

from estat.disk import journal_file

Found = list[tuple[str, int]]


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def events_below(root: str) -> Found:
    """Return the events in all gzip files below a directory."""
    return [found for path in files_below(root) for found in events_in(read_gzip(path))]


def files_below(root: str) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        for name in names:
            if not name.startswith("."):
                yield os.path.join(directory, name)


def read_gzip(path: str) -> bytes:
    with gzip.open(path) as file:
        return file.read()


def events_in_journal(data: bytes) -> Found:
    groups = journal_file.parse(data).groups
    return [found for group in groups for found in events_in(data[group.start : group.end])]


def events_in(data: bytes) -> Found:
    """Return the events in some lines; headers and records of streams are none."""
    lines = [json.loads(line) for line in data.splitlines()]
    return [(line["id"], line["body"]["n"]) for line in lines if "body" in line]
