"""Which pages may read an answer, and which may send: the rule of ALLOWED_ORIGINS. No I/O.

Answers of the intake hold nothing secret, so every page may read them, with credentials too:
without that, browsers drop beacons of JSON and say nothing. With a list of origins, a request of
which the page could read the answer (``Sec-Fetch-Mode: cors``) is refused if its origin is neither
listed nor the server's own. The page can read that, and stops. What no page can read the answer
to is stored: its sender would never know. So a list keeps out nobody who wants to send.
"""

import re
from wsgiref.types import WSGIEnvironment

from estat.config.parsers import ANY_ORIGIN, DEFAULT_PORTS
from estat.errors import Refused
from estat.text import shown
from estat.web.environ import Fields

_VARY = ("Vary", "Origin")
_READABLE = [
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Expose-Headers", "Retry-After"),
    _VARY,
]
_MAX_AGE = ("Access-Control-Max-Age", "86400")
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]+")
_SHOWN_CHARS = 100


def fields(origin: str | None) -> Fields:
    """Return what every answer of the intake has, also an error, for a request of this origin."""
    if origin is None:
        return [_VARY]
    return [("Access-Control-Allow-Origin", origin), *_READABLE]


def preflight(environ: WSGIEnvironment, methods: str) -> Fields:
    """Return what the answer to a preflight has besides.

    The page may send whatever fields it names: tracing libraries add theirs to each request.
    """
    if "HTTP_ORIGIN" not in environ:
        return []
    allowed = [("Access-Control-Allow-Methods", methods), _MAX_AGE]
    names = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    if _NAMES.fullmatch(names):
        allowed.append(("Access-Control-Allow-Headers", names))
    return allowed


class Origins:
    """The origins that may send."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._all = allowed == (ANY_ORIGIN,)
        self._listed = frozenset(allowed)
        #: Scheme, and the end of the host with the port, of ``https://*.shop.example``.
        self._ends = [tuple(origin.split("*")) for origin in allowed if "*." in origin]

    def check(self, environ: WSGIEnvironment) -> None:
        """Raise Refused for a request of a page of another origin, which will hear of it."""
        if self._all or environ.get("HTTP_SEC_FETCH_MODE") != "cors":
            return
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or origin in self._listed or self._is_own(origin, environ):
            return
        if not any(origin.startswith(start) and origin.endswith(end) for start, end in self._ends):
            raise Refused(
                "forbidden_origin", f"ALLOWED_ORIGINS does not list {shown(origin, _SHOWN_CHARS)}"
            )

    @staticmethod
    def _is_own(origin: str, environ: WSGIEnvironment) -> bool:
        """Tell whether a page is of this very server, whatever scheme a proxy speaks."""
        host = environ.get("HTTP_HOST", "").lower()
        return bool(host) and _bare(origin.partition("://")[2]) == _bare(host)


def _bare(host: str) -> str:
    for port in DEFAULT_PORTS.values():
        host = host.removesuffix(port)
    return host
