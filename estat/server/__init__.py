"""The processes: gunicorn's hooks and worker, the connection loop, the drain, the logger.

It is the only package that imports gunicorn. ``web`` says what a request means, and
``pipeline`` what becomes of its events.
"""
