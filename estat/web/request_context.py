"""Writes what is stored of a request beside its events: the client's address, header fields."""

from wsgiref.types import WSGIEnvironment

from estat.config.settings import Settings
from estat.events import json_text, stored_line
from estat.web.client_address import ClientAddress, stored_form
from estat.web.environ import environ_key

_ALWAYS = "user-agent"


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

    def of(self, environ: WSGIEnvironment, write_key: str | None = None) -> bytes:
        """Return the part of the stored line that all events of a request share.

        ``write_key`` is the name of the request's write key, if it has one.
        """
        ip = self._stored_form(self._client.find(environ))
        agent = environ.get("HTTP_USER_AGENT", "")
        if not self._captured and not self._names_key:
            return stored_line.origin(ip, agent)
        # the agent's text is remembered; cookies are all different, and would push it out
        fields = [
            b"%b%b" % (member, stored_line.uncached_header_text(environ.get(key, "")))
            for key, member in self._captured
        ]
        if write_key and self._names_key:
            fields.append(_member("write_key") + json_text.dump(write_key))
        return stored_line.origin(ip, agent, b"".join(fields))


def _member(name: str) -> bytes:
    return b',"%b":' % name.replace("-", "_").encode()
