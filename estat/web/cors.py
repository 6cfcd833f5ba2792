"""Which CORS fields an answer has: the rule of ALLOWED_ORIGINS. It does no I/O.

With ``*`` every answer may be read by every page, but not by a request that sends
credentials: browsers ask for an origin by name then, and ``*`` never names one.
With a list, a page of a listed origin may read answers, with credentials too; the
answer depends on the request's Origin, so caches are told.
"""

from estat.config.parsers import ANY_ORIGIN
from estat.web.environ import Fields

_EXPOSED = ("Access-Control-Expose-Headers", "Retry-After")
_REQUEST_HEADERS = "Content-Type, Content-Encoding, Authorization, X-Write-Key"
_MAX_AGE_SECONDS = 86400


class Cors:
    """The fields for each origin, made once."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._listed: dict[str | None, Fields] = {}
        if allowed == (ANY_ORIGIN,):
            self._others = [("Access-Control-Allow-Origin", ANY_ORIGIN), _EXPOSED]
            return
        vary = ("Vary", "Origin")
        self._others = [vary]
        for origin in allowed:
            self._listed[origin] = [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Allow-Credentials", "true"),
                _EXPOSED,
                vary,
            ]

    def fields(self, origin: str | None) -> Fields:
        """Return what every answer to a request of this origin has; not to be changed."""
        return self._listed.get(origin, self._others)

    def preflight(self, origin: str | None, methods: str) -> Fields:
        """Return what the answer to a preflight has besides; nothing for an unlisted origin."""
        if _EXPOSED not in self.fields(origin):
            return []
        return [
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", _REQUEST_HEADERS),
            ("Access-Control-Max-Age", str(_MAX_AGE_SECONDS)),
        ]
