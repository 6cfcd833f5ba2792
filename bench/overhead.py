"""What an event costs, beside a bare Falcon resource on gunicorn's stock gevent worker."""

from bench import report, rounds, traffic
from bench.contenders import OVERHEAD
from bench.errors import BenchError


def run(directory: str, number_of_rounds: int, seconds: int) -> None:
    """Measure in an empty directory, and print the report. Raises BenchError."""
    hits = traffic.read_hits(directory)
    outcome = rounds.run(OVERHEAD, hits, directory, number_of_rounds, seconds)
    print(rounds.describe(OVERHEAD, hits, number_of_rounds, seconds), end="\n\n")
    print(report.contenders(outcome.rounds))
    if outcome.failed:
        raise BenchError(report.left_out(outcome.failed))
