"""What this server costs, and what its promise costs.

``python -m bench`` from the root of the repository prints a report; it judges
nothing. ``python -m bench scan`` measures one thing alone. What is to be
compared is measured in one run and in turns, because figures drift with the
machine and only their ratios last.

What is measured:

    overhead     an event beside a bare Falcon resource on gunicorn's stock gevent worker
    durability   an event under each DURABILITY
    scan         a partial scan of the DLQ, by the number of files in it
    outage       the rate of acceptance while S3 is down, and the way back

What it is measured with:

    contenders   the table: what is started, what is sent
    disk         where files are made, and on what file system
    traffic      access log -> requests as a load balancer sends them
    servers      start, wait until it serves, check its answers, stop
    load         wrk: one round, or a steady load
    rounds       contenders in turns
    cpu          CPU time of a process and its descendants, and of all the others
    scrape       /metrics -> figures
    store        an S3 that can be down
    course       figures of an outage, second by second
    report       figures -> Markdown
"""
