# The production configuration: gunicorn -c conf/gunicorn.conf.py estat.wsgi:app
#
# gunicorn reads this file at start and again on SIGHUP. Settings of the server are
# environment variables (docs/configuration.md); settings of gunicorn itself can be
# added below, but for worker_class and the hooks, on which the promise rests.

from gevent import monkey

monkey.patch_all()  # before anything that imports ssl, sockets or threads

from estat.server import hooks

globals().update(hooks.gunicorn_config())
