"""A page of the documentation as data: its fenced blocks, of any language, and its tables."""

import re
from typing import NamedTuple

from tests.support.server import ROOT

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block, and the heading that it stands under."""

    section: str
    language: str
    code: str


def sections(page: str) -> dict[str, str]:
    """Return the text under each heading of the second level, "" for what stands before them."""
    parts = re.split(r"^## (.+)$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[0::2], strict=True))


def blocks(page: str) -> list[Block]:
    return [
        Block(section, *found)
        for section, text in sections(page).items()
        for found in _FENCE.findall(text)
    ]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables in a text, without their heads."""
    found: list[list[str]] = []
    in_body = False
    for line in text.splitlines():
        if not line.startswith("|"):
            in_body = False
        elif re.fullmatch(r"[|:\- ]+", line):
            in_body = True
        elif in_body:
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found
