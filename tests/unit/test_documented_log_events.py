"""docs/ops.md tells what each log line that is a warning or worse means."""

import ast
import re

from tests.support.page import read
from tests.support.server import ROOT

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
    sources = [path.read_text() for path in (ROOT / "estat").rglob("*.py")]
    logged = {event for source in sources for event in events_in(source) if _EVENT.fullmatch(event)}
    assert {"store_down", "replay_failed_unexpectedly", "server_stopped"} <= logged
    told = set(re.findall(r"`(\w+)`", read("docs/ops.md") + read("docs/shutdown.md")))
    assert logged - told == set()
