"""The data path of one worker, in its order; ``pipeline`` puts the parts together.

    queue -> collector -> sealer -> uploader -> delivery -> store
                                       |
                                       +-> DLQ -> replayer -> delivery -> store

``admission`` says whether there is room, ``breaker`` whether the store works; ``recovery``,
``takeover`` and ``reconcile`` bring in what dead processes left; ``closing`` says in the bucket of
which hours nothing is left. A stage is given what belongs together as one thing: ``Disk`` (the DLQ
and its threads) and ``Accounts`` (where it says what became of events). What only one worker may do
is a ``leader_loop``. Nothing here knows HTTP or gunicorn.
"""
