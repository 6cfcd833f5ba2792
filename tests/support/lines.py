"""Stored lines, read as strictly as any reader may."""

import gzip
import json
from typing import Any


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def strict_json(text: bytes) -> Any:
    """Parse one JSON text in UTF-8; NaN and Infinity are errors."""
    return json.loads(text.decode(), parse_constant=_refuse)


def parse_lines(data: bytes) -> list[dict[str, Any]]:
    """Parse JSON lines: every line ends with a line feed and is an object."""
    if not data:
        return []
    assert data.endswith(b"\n"), f"the last line is cut off: {data[-80:]!r}"
    lines = [strict_json(line) for line in data[:-1].split(b"\n")]
    for line in lines:
        assert isinstance(line, dict), line
    return lines


def gunzip_lines(data: bytes) -> list[dict[str, Any]]:
    """Parse a gzip file of JSON lines."""
    return parse_lines(gzip.decompress(data))
