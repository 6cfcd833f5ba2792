"""What an event of an NDJSON batch costs, beside the plain loop that does only what must be done.

The loop parses the same bodies, writes the same records and compresses the same
lines; what the server adds is HTTP, checks, the queue, the journal and the store.
"""

import statistics

from bench import disk, load, loop, report, serving, traffic
from bench.contenders import NDJSON
from bench.errors import BenchError
from bench.target import Target

TARGET = Target("CPU per event, server ÷ plain loop,", 1.5)


def run(directory: str, number_of_rounds: int, seconds: int) -> None:
    """Measure in an empty directory, and print the report. Raises BenchError."""
    hits = traffic.read_hits(directory)
    served: list[load.Round] = []
    looped: list[loop.Looped] = []
    with serving.serving(NDJSON, hits, directory) as prepared:
        for number in range(1, number_of_rounds + 1):
            served.append(load.run(NDJSON, prepared.running, prepared.requests_path, seconds))
            looped.append(loop.run(prepared.requests_path, seconds))
            report.progress(
                f"round {number} of {number_of_rounds}: {served[-1].cpu_us:.2f} µs CPU per event, "
                f"the plain loop {looped[-1].cpu_us:.2f}"
            )
    ratio = statistics.median(r.cpu_us for r in served) / statistics.median(
        r.cpu_us for r in looped
    )
    pairs = [a.cpu_us / b.cpu_us for a, b in zip(served, looped, strict=True)]
    last = looped[-1]
    print(
        f"- Load: {NDJSON.events_per_request} events a request, {NDJSON.connections} keep-alive "
        f"connections; {number_of_rounds} alternating rounds of {seconds} s; median (min-max)\n"
        f"- Plain loop: `ujson.loads` of each line, `ujson.dumps` of the record, "
        f"{last.line_bytes / last.events:.0f} bytes, isal gzip level 2 of 5,000 lines at a time, "
        f"to {last.gzip_bytes / last.events:.0f} bytes; CPU time of its process"
    )
    print(report.dlq_disk(disk.file_system(directory)), end="\n\n")
    rows = [
        ("plain loop", report.spread((r.cpu_us for r in looped), 2), "1.00", ""),
        (
            NDJSON.name,
            report.spread((r.cpu_us for r in served), 2),
            f"{ratio:.2f} ({min(pairs):.2f}-{max(pairs):.2f})",
            str(sum(r.refused + r.failed for r in served)),
        ),
    ]
    print(report.table(("what", "CPU µs/event", "CPU ÷ loop", "not 2xx"), rows), end="\n\n")
    print(TARGET.line(NDJSON.name, ratio))
    if any(r.refused + r.failed for r in served):
        raise BenchError(f"{NDJSON.name}: not every request was accepted; don't compare this")
