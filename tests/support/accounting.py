"""The promise as assertions: accepted = stored exactly once + what is on disk."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

Line = dict[str, Any]


def check(
    accepted: Iterable[str],
    stored: list[Line],
    on_disk: Iterable[Line] = (),
    unanswered: Iterable[str] = (),
) -> None:
    """Assert that each accepted event is there once, and nothing else but unanswered ones.

    ``accepted`` and ``unanswered`` are the ``n`` of events (see ``Client``).
    """
    everything = [*stored, *on_disk]
    there = Counter(line["body"]["n"] for line in everything)
    assert there, "nothing was stored at all"
    twice = {name: times for name, times in there.items() if times > 1}
    assert not twice, f"{len(twice)} events are stored more than once: {_some(twice)}"
    lost = set(accepted) - there.keys()
    assert not lost, f"{len(lost)} accepted events are nowhere: {_some(lost)}"
    strange = there.keys() - set(accepted) - set(unanswered)
    assert not strange, f"{len(strange)} events were never accepted: {_some(strange)}"
    check_ids(everything)


def check_ids(lines: list[Line]) -> dict[str, int]:
    """Assert that every stream's numbers are 1 to n, once each; return n by stream."""
    numbers: dict[str, list[int]] = {}
    for line in lines:
        stream, _, number = line["id"].rpartition("-")
        numbers.setdefault(stream, []).append(int(number))
    for stream, found in numbers.items():
        assert len(found) == len(set(found)), f"ids twice in {stream}"
        assert sorted(found) == list(range(1, len(found) + 1)), (
            f"a gap in {stream}: {_some(set(range(1, max(found) + 1)) - set(found))} missing"
        )
    return {stream: len(found) for stream, found in numbers.items()}


def check_receipts(receipts: Iterable[tuple[str, str, list[str]]], stored: list[Line]) -> None:
    """Assert that a request's events have the ids that its answer named, in their order."""
    ids = {line["body"]["n"]: line["id"] for line in stored}
    for first, last, names in receipts:
        stream, _, number = first.rpartition("-")
        told = [f"{stream}-{n}" for n in range(int(number), int(number) + len(names))]
        assert told[-1] == last
        assert [ids[name] for name in names] == told


def missing(metrics: dict[str, float]) -> float:
    """Return how many events the terms of the metrics do not account for."""
    labelled = ("dlq_events_dropped_total{", "dlq_events_set_aside{")
    left = sum(value for name, value in metrics.items() if name.startswith(labelled))
    return (
        metrics["events_accepted_total"]
        + metrics["events_adopted_total"]
        - metrics["s3_events_stored_total"]
        - metrics["events_pending"]
        - metrics["dlq_events_current"]
        - metrics["events_handed_over_total"]
        - left
    )


def check_equation(metrics: dict[str, float]) -> None:
    """Assert that the accounting closes: no accepted event is in none of its terms."""
    assert missing(metrics) == 0, {
        name: value for name, value in metrics.items() if "events" in name and "bucket" not in name
    }


def check_stopped(log_lines: list[Line]) -> Line:
    """Assert that the server's one accounting line says that nothing was lost; return it."""
    lines = [line for line in log_lines if line.get("event") == "server_stopped"]
    assert len(lines) == 1, lines
    assert lines[0]["lost"] == 0, lines[0]
    return lines[0]


def _some(items: Iterable[object]) -> list[str]:
    return sorted(map(str, items))[:10]
