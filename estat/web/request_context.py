"""Writes what is stored of a request beside its events: the client's address, header fields."""

from wsgiref.types import WSGIEnvironment

from estat.config.settings import Settings
from estat.events import charsets, form, json_text, stored_line
from estat.web.client_address import ClientAddress, stored_form
from estat.web.environ import INTAKE, environ_key

_ALWAYS = "user-agent"
_BELOW = f"{INTAKE}/"

_MAX_PATH_CHARS, _MAX_QUERY_BYTES = 256, 4096


class RequestContext:
    """The settings that say what is stored of a request."""

    def __init__(self, settings: Settings) -> None:
        self._client = ClientAddress(settings.trusted_proxies, settings.client_ip_header)
        self._stored_form = stored_form(settings.ip_mode, settings.ip_hash_key)
        names = [name for name in settings.capture_headers if name != _ALWAYS]
        if settings.event_format == "raw" and "cookie" not in names:
            names.insert(0, "cookie")
        self._captured = [(environ_key(name), _member(name)) for name in names]
        self._names_key = settings.capture_write_key_name
        self._has_query = settings.capture_query
        self._charset = charsets.codec(settings.fallback_charset)

    def address(self, environ: WSGIEnvironment) -> str:
        """Return the client's address as IP_MODE stores it."""
        return self._stored_form(self._client.find(environ))

    def of(self, environ: WSGIEnvironment, write_key: str | None = None) -> bytes:
        """Return the part of the stored line that all events of a request share.

        ``write_key`` is the name of the request's write key, if it has one. Raises Refused for
        a query of too many fields.
        """
        ip = self.address(environ)
        agent = environ.get("HTTP_USER_AGENT", "")
        path = environ.get("PATH_INFO", "")
        below = path[len(_BELOW) :] if path.startswith(_BELOW) else ""
        if not (below or self._has_query or self._captured or self._names_key):
            return stored_line.origin(ip, agent)
        # the agent's text is remembered; cookies are all different, and would push it out
        fields = [
            b"%b%b" % (member, stored_line.uncached_header_text(environ.get(key, "")))
            for key, member in self._captured
        ]
        if write_key and self._names_key:
            fields.append(_member("write_key") + json_text.dump(write_key))
        if below:
            text = below.encode("latin-1").decode("utf-8", "replace")
            fields.append(_member("path") + json_text.dump(text[:_MAX_PATH_CHARS]))
        if self._has_query:
            fields.append(_member("query") + json_text.dump(self._query(environ)))
        return stored_line.origin(ip, agent, b"".join(fields))

    def _query(self, environ: WSGIEnvironment) -> form.Fields:
        query = environ.get("QUERY_STRING", "").encode("latin-1")
        if len(query) > _MAX_QUERY_BYTES:  # each event of the request gets it
            query = query[:_MAX_QUERY_BYTES].rpartition(b"&")[0]
        return form.parse(query, self._charset) if query.strip(b"&") else {}


def _member(name: str) -> bytes:
    return b',"%b":' % name.replace("-", "_").encode()
