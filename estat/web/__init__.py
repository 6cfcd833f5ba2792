"""The WSGI application: intake, probes, metrics, CORS, write keys, the client's address.

It may use ``pipeline``, and Falcon, which no other package does but the demo. It knows
nothing of gunicorn: connections and processes are ``server``'s business.
"""
