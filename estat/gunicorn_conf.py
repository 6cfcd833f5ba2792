"""gunicorn's configuration: ``-c python:estat.gunicorn_conf``, or a file that imports all of it."""

from gevent import monkey

monkey.patch_all()  # before anything that imports ssl, sockets or threads

from estat.server import hooks

globals().update(hooks.gunicorn_config())
