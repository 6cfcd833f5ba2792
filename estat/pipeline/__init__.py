"""The data path of one worker, in its order; ``pipeline`` puts the parts together.

    queue -> collector -> sealer -> uploader -> delivery -> store
                                       |
                                       +-> DLQ -> replayer -> delivery -> store

``admission`` says whether there is room, ``breaker`` whether the store works; ``recovery``,
``takeover`` and ``reconcile`` bring in what dead processes left; ``handover`` is a stop's last
step. Nothing here knows HTTP or gunicorn.
"""
