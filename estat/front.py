"""What every request passes on its way to an application, and every answer on its way back.

A request goes to the application of the listener that it came to. Write keys are
taken out of its query first, and its answer gets the CORS fields last: so they
hold for every answer, whatever the application does. The listener of METRICS_ADDR
has neither: it takes no events, and no web page has to read it.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from estat import write_keys
from estat.cors import Cors, Fields
from estat.settings import Settings

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Front:
    """A WSGI application in front of the public one and, with METRICS_ADDR, the private one."""

    def __init__(
        self, settings: Settings, public: Application, private: Application | None
    ) -> None:
        self._public = public
        self._private = private
        self._private_port = settings.metrics_addr.rpartition(":")[2]
        self._takes_keys = bool(settings.write_keys)
        self._cors_fields = Cors(settings.allowed_origins).fields

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Serve one request."""
        # a listener is known by its port: gunicorn puts that of the socket here, not of Host
        if self._private and environ["SERVER_PORT"] == self._private_port:
            return self._private(environ, start_response)
        if self._takes_keys:
            write_keys.take_from_query(environ)
        fields = self._cors_fields(environ.get("HTTP_ORIGIN"))
        return self._public(environ, partial(_start, start_response, fields))


def _start(
    start_response: Callable[..., Any], fields: Fields, status: str, headers: Fields,
    exc_info: Any = None,
) -> Any:  # fmt: skip
    return start_response(status, headers + fields, exc_info)
