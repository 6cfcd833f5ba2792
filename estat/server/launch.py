"""Refuses starts after which the server would run and not work.

- Without the configuration file no hook runs, so no pipeline starts.
- If the application is loaded before the fork, all workers have the same stream.
- A worker class that does not run on gevent serves one request at a time, and no stage of
  the pipeline runs.
- Some of gunicorn's own settings leave nobody to serve.
- The address is taken. gunicorn would try it for five seconds.
"""

import errno
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from gunicorn import systemd
from gunicorn.arbiter import Arbiter
from gunicorn.util import is_ipv6
from gunicorn.workers.ggevent import GeventPyWSGIWorker, GeventWorker

from estat.server import log_stream
from estat.text import safe

RUN = "gunicorn -c python:estat.gunicorn_conf estat.wsgi:app, or: estat serve"

EARLY_LOAD = "estat.wsgi:app was loaded before the workers were forked, which can't share it"

#: What to do where an address can't be listened on.
_REMEDIES = {
    errno.EADDRINUSE: "stop the program that listens there, or choose another port: "
    "{}=:8081 (with make run-local PORT=8081, with estat demo --port 8081)",
    errno.EACCES: "choose a port above 1023: {}=:8080",
}
_NO_SUCH_ADDRESS = "choose an address of this host, or all of them: {}=:8080"

#: So long an address may be in use by what was killed a moment ago.
_KILLED_SECONDS, _POLL_SECONDS = 0.5, 0.02

#: With this status of a worker gunicorn ends, instead of forking another one for ever
#: (WORKER_BOOT_ERROR of its Arbiter).
_STATUS = 3


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
        f"{EARLY_LOAD}; leave out --preload (preload_app)": cfg.preload_app,
        "a client could pass its own field off as a proxy's; leave out --header-map "
        "(header_map)": cfg.header_map == "dangerous",
    }
    return [f"{problem}, and run: {RUN}" for problem, holds in found.items() if holds]


def taken(server: Arbiter) -> Iterator[str]:
    """Yield a sentence for each address that the server is to listen on, and can't."""
    if server.master_pid or systemd.listen_fds(unset_environment=False):
        return  # it has its listeners already
    until = time.monotonic() + _KILLED_SECONDS
    for name, address in zip(("HTTP_ADDR", "METRICS_ADDR"), server.cfg.address, strict=False):
        error = _not_listening(address)
        while error and error.errno == errno.EADDRINUSE and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            error = _not_listening(address)
        if error:
            remedy = _REMEDIES.get(error.errno or 0, _NO_SUCH_ADDRESS)
            place = f"{address[0]}:{address[1]}"
            yield f"can't listen on {place}: {error.strerror}; {remedy.format(name)}"


def _not_listening(address: Any) -> OSError | None:
    if not isinstance(address, tuple):
        return None  # a unix socket, or one that is open
    try:
        with socket.socket(socket.AF_INET6 if is_ipv6(address[0]) else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        return exc
    return None


def refuse(*problems: str, status: int = _STATUS) -> NoReturn:
    """End the process, and say why on standard error, as text: there may be no log yet."""
    stream = log_stream.stderr()
    for problem in problems:
        stream.write(safe(f"estat: {problem}") + "\n")
    stream.flush()
    sys.exit(status)
