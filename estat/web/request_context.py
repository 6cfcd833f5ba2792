"""Writes what is stored of a request beside its events: the client's address and header fields."""

from collections.abc import Mapping
from typing import Any

from estat.config.settings import Settings
from estat.events import stored_line
from estat.web.client_address import ClientAddress, stored_form

_ALWAYS = "user-agent"


class RequestContext:
    """The part of a line that all events of a request share."""

    def __init__(self, settings: Settings) -> None:
        self._client = ClientAddress(settings.trusted_proxies, settings.client_ip_header)
        self._stored_form = stored_form(settings.ip_mode, settings.ip_hash_key)
        names = [name for name in settings.capture_headers if name != _ALWAYS]
        if settings.event_format == "raw" and "cookie" not in names:
            names.insert(0, "cookie")
        self._captured = [(_key(name), _member(name)) for name in names]
        self._names_key = settings.capture_write_key_name

    def of(self, environ: Mapping[str, Any], write_key: str | None = None) -> bytes:
        """Return it for a request's WSGI environment and the name of its write key."""
        ip = self._stored_form(self._client.find(environ))
        agent = environ.get("HTTP_USER_AGENT", "")
        if not self._captured and not self._names_key:
            return stored_line.origin(ip, agent)
        # not remembered as the agent is: cookies are all different, and would push it out
        fields = [
            b"%b%b" % (member, stored_line.uncached_header_text(environ.get(key, "")))
            for key, member in self._captured
        ]
        if write_key and self._names_key:
            fields.append(_member("write_key") + stored_line.encode(write_key))
        return stored_line.origin(ip, agent, b"".join(fields))


def _key(name: str) -> str:
    """Return a header field's name in the WSGI environment."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _member(name: str) -> bytes:
    return b',"%b":' % name.replace("-", "_").encode()
