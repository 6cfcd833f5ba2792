"""Refuses starts after which the server would run and not work.

- Without the configuration file no hook runs, so no pipeline starts.
- If the application is loaded before the fork, all workers have the same stream.
- A worker class that does not run on gevent serves one request at a time, and no stage of
  the pipeline runs.
- Some of gunicorn's own settings leave nobody to serve.
"""

import sys
from typing import Any, NoReturn

from gunicorn.workers.ggevent import GeventPyWSGIWorker, GeventWorker

from estat.server import log_stream
from estat.text import safe

_RUN = "gunicorn -c python:estat.gunicorn_conf estat.wsgi:app, or: estat serve"

_EARLY_LOAD = "estat.wsgi:app was loaded before the workers were forked, which can't share it"

#: With this status of a worker gunicorn ends, instead of forking another one for ever
#: (WORKER_BOOT_ERROR of its Arbiter).
_STATUS = 3


def refuse_without_configuration() -> NoReturn:
    """End a process that has loaded the application, but not the configuration file."""
    refuse(f"gunicorn was started without the server's configuration file; run: {_RUN}")


def refuse_early_load() -> NoReturn:
    """End a process that has loaded the application, and is no worker."""
    refuse(
        f"{_EARLY_LOAD}; leave out --preload (preload_app), --check-config and --print-config, "
        f"and run: {_RUN}"
    )


def wrong_settings(cfg: Any) -> list[str]:
    """Return a sentence for each of gunicorn's own settings with which the server can't work."""
    worker_class = cfg.worker_class
    # the gevent worker with gevent's own HTTP server reads what nobody wants without a bound
    fits = issubclass(worker_class, GeventWorker) and not issubclass(
        worker_class, GeventPyWSGIWorker
    )
    found = {
        f"the worker class {cfg.worker_class_str} is neither the server's own nor gevent; "
        "leave out --worker-class (worker_class)": not fits,
        "without workers nobody is served; leave out --workers (workers), and set "
        "WEB_CONCURRENCY": cfg.workers < 1,
        "without connections nobody is served; leave out --worker-connections "
        "(worker_connections)": cfg.worker_connections < 1,
        "the workers share one socket; leave out --reuse-port (reuse_port)": cfg.reuse_port,
        f"{_EARLY_LOAD}; leave out --preload (preload_app)": cfg.preload_app,
        "a client could pass its own field off as a proxy's; leave out --header-map "
        "(header_map)": cfg.header_map == "dangerous",
    }
    return [f"{problem}, and run: {_RUN}" for problem, holds in found.items() if holds]


def refuse(*problems: str, status: int = _STATUS) -> NoReturn:
    """End the process, and say why on standard error, as text: there may be no log yet."""
    stream = log_stream.stderr()
    for problem in problems:
        stream.write(safe(f"estat: {problem}") + "\n")
    stream.flush()
    sys.exit(status)
