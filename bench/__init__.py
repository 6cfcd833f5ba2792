"""What this server costs, and what its promise costs.

``python -m bench`` from the root of the repository prints a report, and beside
each figure that has a target whether it is met. ``python -m bench start``
measures one thing alone. What is to be compared is measured in one run and in
turns, because figures drift with the machine and only their ratios last.

What is measured:

    cost          overhead     an event beside a bare Falcon resource on the stock gevent worker
                  durability   an event under each DURABILITY
                  ndjson       an event of an NDJSON batch beside a plain loop
                  workers      an event with two workers beside one
    latency       the wait for an answer at half of the maximum rate, during uploads
    start         from the start of gunicorn to the first event accepted
    attack        neighbours   the wait for an answer beside each kind of attack
    outage        the rate of acceptance while S3 is down, and the way back
    recovery      recovery     the journals of a killed server, until they are stored
                  takeover     the DLQ files of a killed server, until the first is stored
    memory        a worker's memory while S3 hangs

What it is measured with:

    contenders    the table: what is started, what is sent
    traffic       access log -> requests as a load balancer sends them
    servers       start, check the answers, read the metrics, stop
    bare, echo    servers to compare with: what is usual, and the floor
    loop          the least that an event stored as JSON costs
    load          wrk: one round, or a steady load
    driver        an open loop: requests at a fixed rate, and percentiles of their latencies
    store         an S3 that can be down
    machine       CPU time, file systems
    report        figures -> Markdown, beside their targets
    charts        figures -> SVG
"""


class BenchError(Exception):
    """A run can't go on; the message is for the person who started it."""
