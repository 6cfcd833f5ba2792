"""What this server costs, and what its promise costs.

``python -m bench`` from the root of the repository prints a report, and beside
each figure that has a target whether it is met. ``python -m bench scan``
measures one thing alone. What is to be compared is measured in one run and in
turns, because figures drift with the machine and only their ratios last.

What is measured:

    overhead      an event beside a bare Falcon resource on gunicorn's stock gevent worker
    durability    an event under each DURABILITY
    ndjson        an event of an NDJSON batch beside a plain loop
    latency       the wait for an answer at half of the maximum rate, during uploads
    workers       an event with two workers beside one
    start         from the start of gunicorn to the first event accepted
    scan          a partial scan of the DLQ, by the number of files in it
    outage        the rate of acceptance while S3 is down, and the way back
    recovery      the journals of a killed server, until they are stored
    memory        a worker's memory while S3 hangs

What it is measured with:

    measurements  the table: what is run, what is drawn
    contenders    the table: what is started, what is sent
    disk          where files are made, and on what file system
    traffic       access log -> requests as a load balancer sends them
    bare, echo    servers to compare with: what is usual, and the floor
    loop          the plain loop
    servers       start, wait until it serves, check its answers, stop
    serving       one contender, ready for load
    load          wrk: one round, or a steady load
    driver        an open loop: requests at a fixed rate
    schedule      when they are due
    percentiles   of their latencies
    cost          contenders in turns
    machine       CPU time of a process and its descendants, and of all the others
    scrape        /metrics -> figures
    store         an S3 that can be down
    course        figures of an outage, second by second
    ceiling       the formula for a worker's memory
    target        what a figure may be at most
    report        figures -> Markdown
    charts        figures -> SVG
"""
