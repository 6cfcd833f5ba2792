"""A page of the documentation as data: its sections, its fenced blocks, its tables, its commands.

A page is named by its path from the root of the repository.
"""

import re
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from tests.support.server import ROOT

_FENCE = r"^```(\w*)\n(.*?)^```$"
_HEADING_OR_BLOCK = re.compile(rf"^#+ ([^\n]+)$|{_FENCE}", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(_FENCE, re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block, and the heading that it stands under."""

    section: str
    language: str
    code: str


class Commands(NamedTuple):
    """What a reader is told to type under one heading, block by block."""

    page: str
    heading: str
    blocks: list[list[str]]


def read(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    """Return the page without its blocks."""
    return _BLOCK.sub("", read(page))


def sections(page: str) -> dict[str, str]:
    """Return the text under each heading of the second level, "" for what stands before them."""
    parts = re.split(r"^## (.+)$", read(page), flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[0::2], strict=True))


def blocks(page: str) -> list[Block]:
    found = []
    heading = ""
    for match in _HEADING_OR_BLOCK.finditer(read(page)):
        if match[1]:
            heading = match[1]
        else:
            found.append(Block(heading, match[2], match[3]))
    return found


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


def commands(page: str) -> list[Commands]:
    """Return the commands of the blocks marked as sh, each as one line, without the comments."""
    typed = (block for block in blocks(page) if block.language == "sh")
    return [
        Commands(page, heading, [_lines(block.code) for block in under])
        for heading, under in groupby(typed, attrgetter("section"))
    ]


def _lines(code: str) -> list[str]:
    whole = re.sub(r"\\\n\s*", "", code)
    stripped = (re.sub(r"(^|\s+)# .*", "", line) for line in whole.splitlines())
    return [line for line in stripped if line]
