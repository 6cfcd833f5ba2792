"""A page of the documentation: its sections, and the commands that it tells a reader to type."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


class Section(NamedTuple):
    """A heading, and the blocks of commands until the next one."""

    page: str
    heading: str
    blocks: list[list[str]]


def sections(page: str) -> list[Section]:
    """Return the sections of a page, named by its path from the root, that have commands."""
    text = (ROOT / page).read_text()
    inside = [match.span() for match in _BLOCK.finditer(text)]
    # a comment in a block of commands looks like a heading
    headings = [
        match for match in _HEADING.finditer(text)
        if not any(start < match.start() < end for start, end in inside)
    ]  # fmt: skip
    ends = [match.start() for match in headings[1:]] + [len(text)]
    found = []
    for match, end in zip(headings, ends, strict=True):
        blocks = [_lines(block) for block in _COMMANDS.findall(text, match.end(), end)]
        found.append(Section(page, match[1], blocks))
    return [section for section in found if section.blocks]


def _lines(block: str) -> list[str]:
    """Return the commands of a block, each on its line, without the comments."""
    commands = (re.sub(r"(^|\s+)# .*", "", line) for line in block.splitlines())
    return [command for command in commands if command]
