"""Refuses starts after which the server would run and not work.

- Without the configuration file no hook runs, so no pipeline starts.
- If the application is loaded before the fork, all workers have the same stream.
- A worker class that does not run on gevent serves one request at a time, and no stage of
  the pipeline runs.
"""

import sys
from typing import NoReturn

from gunicorn.workers.ggevent import GeventPyWSGIWorker, GeventWorker

_RUN = "gunicorn -c conf/gunicorn.conf.py estat.wsgi:app, or: estat serve"

#: With this status of a worker gunicorn ends, instead of forking another one for ever
#: (WORKER_BOOT_ERROR of its Arbiter).
_STATUS = 3


def refuse_without_configuration() -> NoReturn:
    """End a process that has loaded the application, but not the configuration file."""
    refuse(f"gunicorn was started without the server's configuration file; run: {_RUN}")


def refuse_early_load() -> NoReturn:
    """End a process that has loaded the application, and is no worker."""
    refuse(
        "estat.wsgi:app was loaded before the workers were forked, which can't share it; "
        f"leave out --preload (preload_app) and --check-config, and run: {_RUN}"
    )


def check_worker_class(name: str, worker_class: type) -> None:
    """End the process unless its workers are the server's own, or gunicorn's gevent ones.

    The one with gevent's own HTTP server reads what nobody wants without a bound.
    """
    if not issubclass(worker_class, GeventWorker) or issubclass(worker_class, GeventPyWSGIWorker):
        refuse(
            f"the worker class {name} is neither the server's own nor gevent; "
            f"leave out --worker-class (worker_class), and run: {_RUN}"
        )


def refuse(*problems: str, status: int = _STATUS) -> NoReturn:
    """End the process, and say why on standard error: there may be no log yet."""
    for problem in problems:
        sys.stderr.write(f"estat: {problem}\n")
    sys.stderr.flush()
    sys.exit(status)
