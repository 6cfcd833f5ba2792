"""The WSGI application: intake, probes, metrics, CORS, write keys, the client's address.

It may use ``pipeline``. Falcon is used here and in ``demo`` alone. Nothing here imports
gunicorn: connections and processes belong to ``server``.
"""
