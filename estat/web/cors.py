"""Which CORS fields an answer has: the rule of ALLOWED_ORIGINS, without I/O.

With ``*`` every answer may be read by every page, but not by a request that sends
credentials: browsers ask for an origin by name then, and ``*`` never names one.
With a list, a page of a listed origin may read answers, with credentials too; the
answer depends on the request's Origin, so caches are told.
"""

import re

Fields = list[tuple[str, str]]

_ANY = "*"
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?P<port>:\d{1,5})?"
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

_EXPOSED = ("Access-Control-Expose-Headers", "Retry-After")
_REQUEST_HEADERS = "Content-Type, Content-Encoding, Authorization, X-Write-Key"
_MAX_AGE_SECONDS = 86400


def parse(text: str) -> tuple[str, ...]:
    """Parse ``*`` or origins separated by commas, as browsers write them. Raises ValueError."""
    if text == _ANY:
        return (_ANY,)
    return tuple(_origin(part.strip().lower()) for part in text.split(","))


def _origin(text: str) -> str:
    match = _ORIGIN.fullmatch(text)
    if not match or int((match["port"] or ":1")[1:]) not in range(1, 65536):
        raise ValueError
    if match["port"] == _DEFAULT_PORTS.get(match["scheme"], ""):
        return text.removesuffix(match["port"])  # browsers leave it out
    return text


class Cors:
    """The fields for each origin, made once."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._listed: dict[str | None, Fields] = {}
        if allowed == (_ANY,):
            self._others = [("Access-Control-Allow-Origin", _ANY), _EXPOSED]
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
