"""What docs/senders.md says of a sender: a row of its table, and the lines that configure it."""

import json
import re
from collections import Counter
from typing import Any, NamedTuple

from tests.support.page import blocks, rows, sections
from tests.support.server import Server

PAGE = "docs/senders.md"


class Sender(NamedTuple):
    """A row of the table."""

    name: str
    version: str
    settings: str
    path: str
    place: str

    @property
    def environ(self) -> dict[str, str]:
        """The settings that the server needs for this sender, and a write key."""
        pairs = (pair.split("=", 1) for pair in re.findall(r"`([^`]+)`", self.settings))
        return {"WRITE_KEYS": "senders:KEY", **dict(pairs)}

    def lines(self, server: Server) -> str:
        """Return the lines that configure it, for this server in the place of the example."""
        (code,) = (block.code for block in blocks(PAGE) if block.section == self.name)
        code = code.replace("secure=True", "secure=False").replace("https://", "http://")
        code = code.replace("events.example.com', ssl: true", f"127.0.0.1', port: {server.port}")
        return code.replace("events.example.com", server.url.removeprefix("http://"))

    def found(self, lines: list[dict[str, Any]], name: str) -> Counter[str]:
        """Return how often each event ``<name>-<i>`` stands in its place in the stored lines.

        What else stands in a line with such an event is not counted.
        """
        pattern = re.compile(rf"{name}-\d+")
        found = Counter[str]()
        for line in lines:
            if pattern.search(json.dumps(line)):
                assert line.get("path", "") == self.path.strip("`")
                matches = (pattern.search(json.dumps(event)) for event in _at(self.place, line))
                found.update(match[0] for match in matches if match)
        return found


SENDERS = {
    name: Sender(name, *cells)
    for link, *cells in rows(sections(PAGE)["SDKs and log shippers"])
    for name in re.findall(r"\[(.+)\]\(#", link)
}


def _at(place: str, line: dict[str, Any]) -> list[Any]:
    """Return the values at a place of a line, as `body.batch[]`."""
    found: list[Any] = [line]
    for step in place.strip("`").split("."):
        found = [value[step.removesuffix("[]")] for value in found]
        if step.endswith("[]"):
            found = [value for values in found for value in values]
    return found
