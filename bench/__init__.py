"""What this server costs, beside a bare Falcon resource on gunicorn's stock gevent worker.

``python -m bench`` from the root of the repository prints a report; it judges
nothing. All contenders are measured in one run and in turns, because figures
drift with the machine and only their ratios last.

    contenders   the table: what is started, what is sent
    traffic      access log -> requests as a load balancer sends them
    servers      start, wait until it serves, check its answers, stop
    load         one round of wrk
    cpu          CPU time of a process and its descendants
    report       rounds -> Markdown
"""
