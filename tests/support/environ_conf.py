"""The production configuration, with two more paths.

/environ answers what the application was given, and /error is an error in it.

Keys of objects have their type's name as value: that they are there can be compared.
"""

import hashlib
import json

from estat.gunicorn_conf import *  # noqa: F403
from estat.gunicorn_conf import post_worker_init as _start

_PLAIN = (str, int, bool, tuple, type(None))
_OF_THE_CONNECTION = {"REMOTE_PORT", "SERVER_PORT", "HTTP_HOST_PORT"}
#: What the two workers may give in forms of their own: how the body is read, and extras.
_OWN = {"wsgi.input", "wsgi.early_hints", "gunicorn.socket", "estat.body"}


#: A longer answer may be lost with a connection that is closed on bytes that nobody has read.
_MAX_TOLD = 4096


def _told(body):
    if len(body) > _MAX_TOLD:
        return f"{len(body)} bytes, {hashlib.sha256(body).hexdigest()}"
    return body.decode("latin-1")


class _WithEnviron:
    def __init__(self, application):
        self._application = application

    def __getattr__(self, name):
        return getattr(self._application, name)

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/error":
            raise RuntimeError("as asked for")
        if not environ["PATH_INFO"].startswith("/environ"):
            return self._application(environ, start_response)
        given = {
            key: value if isinstance(value, _PLAIN) else f"<{type(value).__name__}>"
            for key, value in environ.items()
            if key not in _OF_THE_CONNECTION | _OWN
        }
        given["body"] = _told(environ["wsgi.input"].read())
        data = json.dumps(given, sort_keys=True).encode()
        start_response(
            "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        )
        return [data]


def post_worker_init(worker):
    worker.wsgi = _WithEnviron(worker.wsgi)
    _start(worker)
