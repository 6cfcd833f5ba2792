# gunicorn's configuration: gunicorn -c gunicorn.conf.py estat.wsgi:app
#
# gunicorn reads this file at start and again on SIGHUP. Settings of the server are environment
# variables, or lines of .env. Settings of gunicorn itself can be added below, but for worker_class
# and the hooks, on which the promise rests.

from estat.gunicorn_conf import *
