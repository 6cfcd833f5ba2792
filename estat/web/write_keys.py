"""Write keys: who may send events. A rule without I/O.

A key is known by its digest from the moment when the setting is read, so that
neither settings nor a request's environment show it. All keys are compared, each
in constant time. A key in a query is taken out before anything else sees it
(``take_from_query``).
"""

import contextlib
from base64 import b64decode
from collections.abc import Iterator
from hmac import compare_digest
from urllib.parse import unquote
from wsgiref.types import WSGIEnvironment

from estat.config.parsers import WriteKey, key_digest
from estat.web.environ import QUERY_KEY

#: The field of a query that is a write key, where there are any.
_KEY_PARAMETER = "key"


class WriteKeys:
    """The keys that are valid."""

    def __init__(self, keys: tuple[WriteKey, ...]) -> None:
        self._keys = keys

    def find(self, environ: WSGIEnvironment) -> str | None:
        """Return the name of the valid key that a request has; None if it has none."""
        found = None
        for given in _given(environ):
            for name, digest in self._keys:  # all of them, so that the time tells nothing
                if compare_digest(given, digest):
                    found = name
        return found


def _given(environ: WSGIEnvironment) -> Iterator[bytes]:
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        yield key_digest(token.strip())
    elif scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            user, _, _ = b64decode(token).partition(b":")
            yield key_digest(user.decode("latin-1"))
    if "HTTP_X_WRITE_KEY" in environ:
        yield key_digest(environ["HTTP_X_WRITE_KEY"])
    if QUERY_KEY in environ:
        yield environ[QUERY_KEY]


def take_from_query(environ: WSGIEnvironment) -> None:
    """Take the key out of a request's query, so that no code after this can see it."""
    query = environ.get("QUERY_STRING")
    if not query:
        return
    rest, key = split_query(query)
    if key is None:
        return
    environ[QUERY_KEY] = key_digest(key)
    environ["QUERY_STRING"] = rest
    path, _, query = environ.get("RAW_URI", "").partition("?")
    rest, _ = split_query(query)
    environ["RAW_URI"] = f"{path}?{rest}" if rest else path


def split_query(query: str) -> tuple[str, str | None]:
    """Return a query without its keys, otherwise unchanged, and the first of the keys."""
    rest, keys = [], []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if unquote(name) == _KEY_PARAMETER:
            keys.append(unquote(value))  # a plus stays one: no key has a space
        else:
            rest.append(part)
    return "&".join(rest), keys[0] if keys else None
