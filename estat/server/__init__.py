"""The process: gunicorn's hooks and worker, the connection loop, the drain, the logger.

It is the only package that imports gunicorn. What a request means is ``web``'s business,
what becomes of its events ``pipeline``'s.
"""
