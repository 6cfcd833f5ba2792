"""What an event and its acknowledgement cost under each DURABILITY.

At full load a request's latency is mostly time in line, the same line for all;
one connection alone shows what each acknowledgement waits for.
"""

from bench import cost, disk, report, target, traffic
from bench.contenders import DURABILITY
from bench.errors import BenchError


def run(directory: str, number_of_rounds: int, seconds: int) -> None:
    """Measure in an empty directory, and print the report. Raises BenchError."""
    hits = traffic.read_hits(directory)
    outcome = cost.run(DURABILITY, hits, directory, number_of_rounds, seconds)
    print(cost.describe(DURABILITY, hits, number_of_rounds, seconds))
    print(report.dlq_disk(disk.file_system(directory)), end="\n\n")
    print(report.contenders(outcome.rounds), end="\n\n")
    print(target.none("the levels are there to choose from"))
    if outcome.failed:
        raise BenchError(report.left_out(outcome.failed))
