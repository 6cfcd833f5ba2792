"""Files in a DLQ directory as somebody writes them who wants the server to obey them."""

import json
from typing import Any

from estat.disk import dlq_file, journal_file
from estat.disk.journal_file import Header, pack_group
from estat.events.batch import Batch
from estat.events.gzip import gunzip, gzip
from tests.unit.batches import lines

ESCAPED = "../../../../../evil"


def dlq_bytes(batch: Batch, **changes: Any) -> bytes:
    """Return a DLQ file whose every checksum is right, with these changes to its header."""
    header, payload = dlq_file.pack(batch, "put_failed", "")
    about = json.loads(gunzip(header)) | changes
    return gzip(json.dumps(about).encode() + b"\n") + payload


def journal_bytes(header: Header, numbers: range, **changes: Any) -> bytes:
    """Return a journal whose every checksum is right, with these changes to its header."""
    facts = json.loads(journal_file.pack_header(header))
    del facts["crc32"]
    first_line = journal_file._facts(facts | changes)
    group = pack_group(lines(numbers, header.stream).splitlines(keepends=True))
    return first_line + group


def changes(elsewhere: str) -> dict[str, dict[str, Any]]:
    """Return what may be changed in a header of either format, and must not be obeyed."""
    key = "raw/dt=2025-11-13/hr=07/1763017800_web-1-0199c1b2f3a4abababababababab_000001.jsonl.gz"
    return {
        "any file": {"bucket": f"file:{elsewhere}", "key": "authorized_keys"},
        "up": {"key": f"{ESCAPED}/{key}"},
        "up in the middle": {"key": f"raw/../../{key}"},
        "here": {"key": f"./{key}"},
        "absolute": {"key": f"{elsewhere}/{key}"},
        "an empty part": {"key": f"raw//{key}"},
        "backslash": {"key": f"raw\\..\\{key}"},
        "control character": {"key": f"raw\n/{key}"},
        "zero byte": {"key": f"{key}\0"},
        "another's key": {"key": key.replace("abab", "cdcd")},
        "name": {"name": ESCAPED},
        "stream": {"stream": ESCAPED},
        "no bucket": {"bucket": "EVENTS/../x"},
        "relative": {"bucket": "file:evil"},
        "a number": {"key": 5},
        "a list": {"bucket": ["events"]},
        "nothing": {"name": None},
        "infinite": {"opened": float("inf")},
        "not a number": {"opened": float("nan")},
        "huge": {"first": 10**4000},
        "negative": {"first": -1},
        "yes": {"first": True},
    }
