"""The accounting of ``estat send``: what became of every event that was read.

    read = accepted + refused + unanswered + unsent

``unanswered`` may be stored or not; ``refused`` and ``unsent`` are not. Several threads
count at the same time, so every change takes the lock.
"""

import json
import re
import sys
import threading
from collections import Counter
from typing import Any, Literal, NamedTuple

from estat.cli.output import CommandError
from estat.text import safe

#: Distinct reasons that are kept apart; what a server writes must not fill the memory.
_MAX_REASONS = 50
_REASON_CHARS = 120

#: A gateway answers so if the server did not answer it; the server may have stored the events.
_GATEWAY_STATUSES = frozenset({502, 504})

#: What becomes of an event that is not accepted; each is counted by reason.
_FATES = ("refused", "unanswered", "unsent")

#: The number of a line that nobody knows.
_UNKNOWN = sys.maxsize


class Request(NamedTuple):
    """One request's body and headers, and the number of the line of each of its events."""

    body: bytes
    headers: dict[str, bytes]
    lines: list[int]

    @property
    def events(self) -> int:
        """How many events it holds."""
        return len(self.lines)


class Outcome(NamedTuple):
    """What the server said, or why there is no answer."""

    fate: Literal["answered", "unsent", "unanswered"]
    reason: str
    status: int = 0
    retry_after: str = ""
    body: bytes | None = b""  # None if the connection broke within it
    unreachable: bool = False  # not even a connection could be opened


class Tally:
    """Counts events by what became of them, each but ``accepted`` by reason."""

    def __init__(self) -> None:
        self.read = 0  # one thread reads
        #: Why the file could not be read to its end.
        self.broken_off: CommandError | None = None
        self.accepted = 0
        self.retries = 0
        self.unreadable_lines = 0
        self.first_unreadable_line: int | None = None
        self._by_reason: dict[str, Counter[str]] = {fate: Counter() for fate in _FATES}
        self._first_line: dict[str, dict[str, int]] = {fate: {} for fate in _FATES}
        self._lock = threading.Lock()

    def add_unreadable(self, line_number: int) -> None:
        """Count a line that is no event."""
        self.unreadable_lines += 1
        self.first_unreadable_line = self.first_unreadable_line or line_number

    def add_retry(self) -> None:
        """Count a request that is sent once more."""
        with self._lock:
            self.retries += 1

    def add_outcome(self, request: Request, outcome: Outcome) -> None:
        """Count the events of a request by what became of it in the end."""
        with self._lock:
            if outcome.fate != "answered":
                self._add(outcome.fate, outcome.reason, *request.lines)
            elif 200 <= outcome.status < 300:
                self._add_success(request, outcome)
            else:
                title = _content(outcome.body).get("title") or outcome.reason
                fate = "unanswered" if outcome.status in _GATEWAY_STATUSES else "refused"
                self._add(fate, f"{outcome.status} {title}", *request.lines)

    def _add_success(self, request: Request, answer: Outcome) -> None:
        """Count a 2xx: it may have accepted some events of a batch and refused others."""
        events = request.events
        if answer.body is None and events > 1:
            # 2xx, so at least one is stored, but how many was in the part that is lost
            self._add("unanswered", f"{answer.status}, but its body was cut off", *request.lines)
            return
        content = _content(answer.body)
        accepted = content.get("accepted", events)
        if type(accepted) is not int or not 0 <= accepted <= events:
            reason = f"{answer.status}, but its counts can't be right"
            self._add("unanswered", reason, *request.lines)
            return
        self.accepted += accepted
        refused = events - accepted
        errors = content.get("errors")
        for error in errors if isinstance(errors, list) else []:
            # without its numbers (positions, sizes), so that like faults are counted as one
            if refused and isinstance(error, dict):
                reason = re.sub(r"\d+", "#", str(error.get("reason")))
                index = error.get("index")
                known = isinstance(index, int) and 0 <= index < events
                line = request.lines[index or 0] if known else _UNKNOWN
                self._add("refused", f"in a batch: {reason}", line)
                refused -= 1
        self._add("refused", "in a batch: reason not in the answer", *[_UNKNOWN] * refused)

    def _add(self, fate: str, reason: str, *lines: int) -> None:
        """Count the events of lines by reason, and "other reasons" where there are too many."""
        by_reason, first = self._by_reason[fate], self._first_line[fate]
        reason = safe(reason, _REASON_CHARS)
        if reason not in by_reason and len(by_reason) >= _MAX_REASONS:
            reason = "other reasons"
        if lines:
            by_reason[reason] += len(lines)
            first[reason] = min(first.get(reason, _UNKNOWN), *lines)

    @property
    def complete(self) -> bool:
        """Whether every line became an event and every event was accepted."""
        return self.read == self.accepted and not self.unreadable_lines

    def progress(self, seconds: float) -> str:
        """Return one short line that says how far the run is."""
        with self._lock:
            refused, unanswered, _ = (self._by_reason[fate].total() for fate in _FATES)
            line = f"{self.accepted / seconds:,.0f}/s  accepted {self.accepted:,}"
            lost = f"  unanswered {unanswered:,}" if unanswered else ""
            return f"{line}  refused {refused:,}{lost}"

    def summary(self, seconds: float) -> dict[str, Any]:
        """Return all counts, as ``--json`` prints them.

        What was read and is not counted yet was given up on, and counts as unanswered.
        """
        with self._lock:
            known = self.accepted + sum(counts.total() for counts in self._by_reason.values())
            given_up = [_UNKNOWN] * (self.read - known)
            self._add("unanswered", "stopped before an answer", *given_up)
            summary: dict[str, Any] = {"read": self.read, "accepted": self.accepted}
            for fate, by_reason in self._by_reason.items():
                summary[fate] = by_reason.total()
                summary[f"{fate}_by_reason"] = dict(by_reason.most_common())
                first = self._first_line[fate].items()
                summary[f"{fate}_first_line"] = {why: n for why, n in first if n < _UNKNOWN}
            return summary | {
                "retries": self.retries,
                "unreadable_lines": self.unreadable_lines,
                "first_unreadable_line": self.first_unreadable_line,
                "seconds": round(seconds, 3),
                "events_per_second": round(self.accepted / seconds, 1),
            }


def as_lines(summary: dict[str, Any]) -> list[str]:
    """Return a summary for people; lines that would only say zero are left out."""
    lines = [_line("read", summary["read"]), _line("accepted", summary["accepted"])]
    for fate in _FATES:
        if summary[fate] or fate != "unsent":
            lines.append(_line(fate, summary[fate]))
        first = summary[f"{fate}_first_line"]
        for reason, events in summary[f"{fate}_by_reason"].items():
            place = f"  (line {first[reason]}{', and others' * (events > 1)})" * (reason in first)
            lines.append(_line("", events, f"  {reason}{place}"))
    if summary["retries"]:
        lines.append(_line("retries", summary["retries"]))
    if summary["unreadable_lines"]:
        first = f"  the first is line {summary['first_unreadable_line']}"
        lines.append(_line("unreadable", summary["unreadable_lines"], first))
    seconds, rate = summary["seconds"], summary["events_per_second"]
    return [*lines, f"in {seconds:,.1f}s, {rate:,.0f} accepted events/s"]


def _line(name: str, count: int, remark: str = "") -> str:
    return f"{name:<11} {count:>10,}{remark}"


def _content(body: bytes | None) -> dict[str, Any]:
    """Return the JSON object of an answer; empty if it has none."""
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
