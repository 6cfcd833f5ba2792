"""The accounting of ``estat send``: what became of every event that was read.

    read = accepted + refused + unanswered + unsent

once a run has ended. ``unanswered`` may be stored or not; ``refused`` and ``unsent`` are
not. Several threads count at the same time, so every change takes the lock.
"""

import json
import re
import threading
from collections import Counter
from typing import Any

from estat.cli.http_post import Answer, NotSentError, Outcome, Request, UnansweredError

#: Distinct reasons that are kept apart; what a server writes must not fill the memory.
_MAX_REASONS = 50
_REASON_CHARS = 120

#: A gateway answers so if the server did not answer it; the server may have stored the events.
_GATEWAY_STATUSES = frozenset({502, 504})

#: What becomes of an event that is not accepted; each is counted by reason.
_FATES = ("refused", "unanswered", "unsent")


class Tally:
    """Counts events by what became of them, each but ``accepted`` by reason."""

    def __init__(self) -> None:
        self.read = 0
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.unsent: Counter[str] = Counter()
        self.retries = 0
        self.unreadable_lines = 0
        self.first_unreadable_line: int | None = None
        self._lock = threading.Lock()

    def add_read(self, events: int) -> None:
        """Count events that were read from the file."""
        with self._lock:
            self.read += events

    def add_unreadable(self, line_number: int) -> None:
        """Count a line that is no event."""
        with self._lock:
            self.unreadable_lines += 1
            if self.first_unreadable_line is None:
                self.first_unreadable_line = line_number

    def add_retry(self) -> None:
        """Count a request that is sent once more."""
        with self._lock:
            self.retries += 1

    def add_outcome(self, request: Request, outcome: Outcome) -> None:
        """Count the events of a request by what became of it in the end."""
        with self._lock:
            match outcome:
                case NotSentError():
                    _add(self.unsent, str(outcome), request.events)
                case UnansweredError():
                    _add(self.unanswered, str(outcome), request.events)
                case Answer():
                    self._add_answer(request.events, outcome)

    def settle(self, reason: str) -> None:
        """Count what is not accounted for as unanswered: its threads were given up on."""
        with self._lock:
            counted = self.accepted + sum(self._by_reason(fate).total() for fate in _FATES)
            if self.read > counted:
                _add(self.unanswered, reason, self.read - counted)

    def _add_answer(self, events: int, answer: Answer) -> None:
        content = _content(answer.body)
        if 200 <= answer.status < 300:
            self._add_success(events, answer, content)
            return
        title = content.get("title")
        if not isinstance(title, str) or not title:
            title = answer.reason
        by_reason = self.unanswered if answer.status in _GATEWAY_STATUSES else self.refused
        _add(by_reason, f"{answer.status} {title}", events)

    def _add_success(self, events: int, answer: Answer, content: dict[str, Any]) -> None:
        if answer.body is None and events > 1:
            # 2xx, so at least one is stored, but how many was in the part that is lost
            _add(self.unanswered, f"{answer.status}, but its body was cut off", events)
            return
        accepted = content.get("accepted", events)
        if type(accepted) is not int or not 0 <= accepted <= events:
            _add(self.unanswered, f"{answer.status}, but its counts can't be right", events)
            return
        self.accepted += accepted
        refused = events - accepted
        errors = content.get("errors")
        for error in errors if isinstance(errors, list) else []:
            if refused and isinstance(error, dict):
                _add(self.refused, f"in a batch: {_similar(str(error.get('reason')))}", 1)
                refused -= 1
        if refused:
            _add(self.refused, "in a batch: reason not in the answer", refused)

    def _by_reason(self, fate: str) -> Counter[str]:
        by_reason: Counter[str] = getattr(self, fate)
        return by_reason

    @property
    def complete(self) -> bool:
        """Whether every line became an event and every event was accepted."""
        return self.read == self.accepted and not self.unreadable_lines

    def progress(self, seconds: float) -> str:
        """Return one short line for a progress bar."""
        with self._lock:
            rate = self.accepted / seconds if seconds > 0 else 0.0
            line = f"{rate:,.0f}/s  accepted {self.accepted:,}  refused {self.refused.total():,}"
            lost = self.unanswered.total()
            return f"{line}  unanswered {lost:,}" if lost else line

    def summary(self, seconds: float) -> dict[str, Any]:
        """Return all counts, as ``--json`` prints them."""
        with self._lock:
            summary: dict[str, Any] = {"read": self.read, "accepted": self.accepted}
            for fate in _FATES:
                by_reason = self._by_reason(fate)
                summary[fate] = by_reason.total()
                summary[f"{fate}_by_reason"] = dict(by_reason.most_common())
            return summary | {
                "retries": self.retries,
                "unreadable_lines": self.unreadable_lines,
                "first_unreadable_line": self.first_unreadable_line,
                "seconds": round(seconds, 3),
                "events_per_second": round(self.accepted / seconds, 1) if seconds > 0 else 0.0,
            }


def as_text(summary: dict[str, Any]) -> str:
    """Return a summary for people; lines that would only say zero are left out."""
    lines = [_line("read", summary["read"]), _line("accepted", summary["accepted"])]
    for fate in _FATES:
        if summary[fate] or fate != "unsent":
            lines.append(_line(fate, summary[fate]))
        by_reason = summary[f"{fate}_by_reason"]
        lines += [_line("", events, f"  {reason}") for reason, events in by_reason.items()]
    if summary["retries"]:
        lines.append(_line("retries", summary["retries"]))
    if summary["unreadable_lines"]:
        first = f"  the first is line {summary['first_unreadable_line']}"
        lines.append(_line("unreadable", summary["unreadable_lines"], first))
    seconds, rate = summary["seconds"], summary["events_per_second"]
    return "".join(lines) + f"in {seconds:,.1f}s, {rate:,.0f} accepted events/s\n"


def _line(name: str, count: int, remark: str = "") -> str:
    return f"{name:<11} {count:>10,}{remark}\n"


def _add(by_reason: Counter[str], reason: str, events: int) -> None:
    reason = " ".join(reason.split())[:_REASON_CHARS]
    if reason not in by_reason and len(by_reason) >= _MAX_REASONS:
        reason = "other reasons"
    by_reason[reason] += events


def _similar(reason: str) -> str:
    """Take the numbers out (positions, sizes), so that like faults are counted as one."""
    return re.sub(r"\d+", "#", reason)


def _content(body: bytes | None) -> dict[str, Any]:
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
