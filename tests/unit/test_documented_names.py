"""The pages name what there is, this version, and every log line that is a warning or worse."""

import ast
import re

import pytest

from estat import __version__
from tests.support.page import read
from tests.support.server import ROOT

PAGES = [
    *("ops", "troubleshooting", "durability", "dlq", "shutdown", "bucket", "sizing", "migration"),
    "architecture",
]
SOURCES = [path.read_text() for path in sorted((ROOT / "estat").rglob("*.py"))]

_LEVELS = {"warning", "error", "critical", "exception", "log"}
_EVENT = re.compile(r"[a-z]+(_[a-z]+)+")


def events_in(source):
    """Yield the events that a module logs, as a warning or worse or at a level that it computes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=of, attr=attr), args=args) if attr in _LEVELS:
                if re.search(r"log|seldom", ast.unparse(of)):
                    event = args[attr == "log"]
                    yield event.value if isinstance(event, ast.Constant) else ""
            case ast.Assign(targets=[ast.Name(id="_error_event")], value=ast.Constant(value=event)):
                yield event


def test_every_log_event_of_a_warning_or_worse_is_told():
    logged = {event for source in SOURCES for event in events_in(source) if _EVENT.fullmatch(event)}
    assert {"store_down", "replay_failed_unexpectedly", "server_stopped"} <= logged
    pages = ("docs/ops.md", "docs/troubleshooting.md", "docs/shutdown.md")
    told = set(re.findall(r"`(\w+)`", "".join(map(read, pages))))
    assert logged - told == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_event_metric_and_reason_that_a_page_names_is_in_the_sources(page):
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)[`{]", read(f"docs/{page}.md")))
    words = set(re.findall(r"\w+", "\n".join(SOURCES)))
    assert named
    assert named - words == set()


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda p: p.name
)
def test_every_image_and_wheel_that_a_page_names_is_of_this_version(page):
    named = re.findall(r"estat[-_]ingest(?:[-:]|==)(\d[\d.a-z]*\d)", page.read_text())
    assert set(named) <= {__version__}
