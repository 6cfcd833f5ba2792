"""What an event costs with two workers, beside one.

They share the DLQ directory, a page of memory and the listener; nothing of an
event's way is shared, so a second worker should cost little but a rate half as
high for each, and smaller groups with it.
"""

import statistics

from bench import cost, disk, report, traffic
from bench.contenders import WORKERS
from bench.errors import BenchError
from bench.target import Target

TARGET = Target("CPU per event with 2 workers ÷ with 1", 1.15)


def run(directory: str, number_of_rounds: int, seconds: int) -> None:
    """Measure in an empty directory, and print the report. Raises BenchError."""
    hits = traffic.read_hits(directory)
    outcome = cost.run(WORKERS, hits, directory, number_of_rounds, seconds)
    print(cost.describe(WORKERS, hits, number_of_rounds, seconds))
    print(report.dlq_disk(disk.file_system(directory)), end="\n\n")
    print(report.contenders(outcome.rounds), end="\n\n")
    if outcome.failed:
        raise BenchError(report.left_out(outcome.failed))
    one, *more = (statistics.median(r.cpu_us for r in found) for found in outcome.rounds.values())
    for contender, cpu_us in zip(WORKERS[1:], more, strict=True):
        print(TARGET.line(contender.name, cpu_us / one))
