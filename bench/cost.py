"""Contenders in turns: starts each server once, then a round of load for each, and again.

A contender that does not start or serve is left out and reported; the others go on.
"""

import contextlib
import os
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from bench import load, report, servers, traffic
from bench.contenders import Contender, Server
from bench.errors import BenchError


class Outcome(NamedTuple):
    """What the rounds found, and what is missing from it."""

    rounds: dict[Contender, list[load.Round]]
    failed: dict[str, str]


def run(
    contenders: Sequence[Contender], hits: list[traffic.Hit], directory: str,
    rounds: int, seconds: int,
) -> Outcome:  # fmt: skip
    """Measure the contenders in turns, in an empty directory."""
    outcome = Outcome({}, {})
    paths: dict[Contender, str] = {}
    running: dict[Server, servers.Running] = {}
    # all of them stay up to the end: a round never pays for a start
    with contextlib.ExitStack() as stack:
        for number, contender in enumerate(contenders):
            paths[contender] = os.path.join(directory, f"requests-{number}")
            try:
                _start(contender, hits, directory, paths[contender], running, stack)
            except BenchError as exc:
                _leave_out(outcome, contender, exc)
            else:
                outcome.rounds[contender] = []
        for number in range(1, rounds + 1):
            for contender in list(outcome.rounds):
                try:
                    found = load.run(
                        contender, running[contender.server], paths[contender], seconds
                    )
                except BenchError as exc:
                    _leave_out(outcome, contender, exc)
                    continue
                outcome.rounds[contender].append(found)
                report.progress(
                    f"round {number} of {rounds}: {contender.name}: "
                    f"{found.events_per_second:,.0f} events/s, {found.cpu_us:.1f} µs CPU per event"
                )
    return outcome


def describe(
    contenders: Sequence[Contender], hits: list[traffic.Hit], rounds: int, seconds: int
) -> str:
    """Return what was sent, for the report."""
    event_bytes = statistics.fmean(len(hit.event) for hit in hits)
    return report.traffic(len(hits), event_bytes, contenders[0].connections, rounds, seconds)


def _start(
    contender: Contender, hits: list[traffic.Hit], directory: str, requests_path: str,
    running: dict[Server, servers.Running], stack: contextlib.ExitStack,
) -> None:  # fmt: skip
    server = contender.server
    if server not in running:
        own = os.path.join(directory, server.name)
        # there already: another contender's attempt to start it failed
        if os.path.exists(own):
            raise BenchError(f"{server.name} did not start")
        os.mkdir(own)
        report.progress(f"starting {server.name}")
        running[server] = stack.enter_context(servers.running(server, own))
    contents = traffic.requests(hits, contender)
    traffic.write(requests_path, contents)
    report.progress(f"checking and warming up: {contender.name}")
    refused = servers.check(contender, running[server].port, contents)
    if refused:
        report.progress(f"refused already, one at a time: {refused} of {len(contents)} requests")


def _leave_out(outcome: Outcome, contender: Contender, error: BenchError) -> None:
    outcome.rounds.pop(contender, None)
    outcome.failed[contender.name] = str(error)
    report.progress(f"left out: {contender.name}: {error}")
