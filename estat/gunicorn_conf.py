"""gunicorn's configuration file as ``estat serve`` uses it; conf/gunicorn.conf.py is its twin."""

from gevent import monkey

monkey.patch_all()  # before anything that imports ssl, sockets or threads

from estat.server import hooks

globals().update(hooks.gunicorn_config())
