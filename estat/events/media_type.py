"""What a body is by the name of its type: lines of JSON, other JSON text, or a form."""

import re
from functools import lru_cache

from estat.errors import Refused
from estat.text import shown

LINES, TEXT, FORM = "lines", "text", "form"

_PATTERNS = {
    LINES: re.compile(r"(application|text)/(x-)?(nd-?json|ld-?json|json-?lines?|jsonl|json-?seq)"),
    TEXT: re.compile(
        r"|(application|text)/(x-)?json|[^/]+/[^/]+\+json|application/(csp-report|octet-stream)"
        r"|text/plain"
    ),
    FORM: re.compile(r"application/x-www-form-urlencoded"),
}


@lru_cache(maxsize=256)
def kind(content_type: str | None) -> str:
    """Return LINES, TEXT or FORM for the value of a Content-Type. Raises Refused for others."""
    name = (content_type or "").partition(";")[0].strip().lower()
    for found, pattern in _PATTERNS.items():
        if pattern.fullmatch(name):
            return found
    raise Refused(
        "unsupported_type",
        f"{shown(name, 100)} is not supported; send application/json or application/x-ndjson",
    )
