"""What an event costs, beside a bare Falcon resource on gunicorn's stock gevent worker.

And beside the floor, a server that only receives and sends: what is above it is
all that work on the server could ever save.
"""

from bench import cost, load, report, target, traffic
from bench.contenders import FLOOR, OVERHEAD, Contender
from bench.errors import BenchError


def run(directory: str, number_of_rounds: int, seconds: int) -> dict[Contender, list[load.Round]]:
    """Measure in an empty directory, and print the report. Raises BenchError."""
    hits = traffic.read_hits(directory)
    outcome = cost.run(OVERHEAD, hits, directory, number_of_rounds, seconds)
    print(cost.describe(OVERHEAD, hits, number_of_rounds, seconds), end="\n\n")
    print(report.contenders(outcome.rounds, {"CPU ÷ floor": FLOOR}), end="\n\n")
    print(target.none("the bare Falcon resource is the first row, the floor the second"))
    if outcome.failed:
        raise BenchError(report.left_out(outcome.failed))
    return outcome.rounds
