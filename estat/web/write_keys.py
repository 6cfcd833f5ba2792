"""Write keys: who may send events. A rule without I/O.

A key is known by its digest from the moment when the setting is read, so that
neither settings nor a request's environment show it. All keys are compared, each
in constant time. A key in a query is taken out before anything else sees it
(``take_from_query``), and out of what gunicorn logs by itself (``hidden``).
"""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Any, NamedTuple
from urllib.parse import unquote

#: Keys at a time, and so the values of the label that counts them.
MAX_KEYS = 32

# what fits a Bearer token (RFC 6750), a header field and a query
_ENTRY = re.compile(r"(?:(?P<name>[A-Za-z0-9_.-]{1,64}):)?(?P<key>[A-Za-z0-9._~+/-]+=*)")

#: Of a query or a form; it never becomes part of an event.
PARAMETER = "key"
#: Where a request's environment keeps the digest of the key that its query had.
_TAKEN = "estat.query_key"

#: A key in a text: behind its parameter, also if that is escaped, or behind a header's name.
_IN_TEXT = re.compile(
    r"(?i)((?:^|[?&])(?:k|%6b)(?:e|%65)(?:y|%79)=)[^&#\s'\"\\]*"
    r"|((?:authorization|x-write-key)(?:[: ]|\\t)+)[^'\"\\\r\n]*"
)
_HIDDEN = "(hidden)"


class WriteKey(NamedTuple):
    """A key by its name and its SHA-256."""

    name: str
    digest: bytes


def parse(text: str) -> tuple[WriteKey, ...]:
    """Parse ``key`` or ``name:key``, separated by commas.

    Keys of one name count together. One without a name is called by its place: key1, key2 …
    Raises ValueError, also for a key that is there twice and for such a name given to another.
    """
    matches = [_ENTRY.fullmatch(part.strip()) for part in text.split(",")]
    given = {match["name"] for match in matches if match}
    keys = []
    for number, match in enumerate(matches, 1):
        if not match or (not match["name"] and f"key{number}" in given):
            raise ValueError
        keys.append(WriteKey(match["name"] or f"key{number}", _digest(match["key"])))
    if len({key.digest for key in keys}) < len(keys) or len(keys) > MAX_KEYS:
        raise ValueError
    return tuple(keys)


class WriteKeys:
    """The keys that are valid."""

    def __init__(self, keys: tuple[WriteKey, ...]) -> None:
        self._keys = keys

    def find(self, environ: Mapping[str, Any]) -> str | None:
        """Return the name of the valid key that a request has; None if it has none."""
        found = None
        for given in _given(environ):
            for name, digest in self._keys:  # all of them: the time tells nothing
                if compare_digest(given, digest):
                    found = name
        return found


def _given(environ: Mapping[str, Any]) -> Iterator[bytes]:
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        yield _digest(token.strip())
    if "HTTP_X_WRITE_KEY" in environ:
        yield _digest(environ["HTTP_X_WRITE_KEY"])
    if _TAKEN in environ:
        yield environ[_TAKEN]


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def take_from_query(environ: dict[str, Any]) -> None:
    """Take the key out of a request's query, so that nothing behind this can tell it."""
    query = environ.get("QUERY_STRING")
    if not query:
        return
    rest, key = split_query(query)
    if key is None:
        return
    environ[_TAKEN] = _digest(key)
    environ["QUERY_STRING"] = rest
    path, _, query = environ.get("RAW_URI", "").partition("?")
    rest, _ = split_query(query)
    environ["RAW_URI"] = f"{path}?{rest}" if rest else path


def split_query(query: str) -> tuple[str, str | None]:
    """Return a query without its keys, as it was otherwise, and the first of them."""
    rest, keys = [], []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if unquote(name) == PARAMETER:
            keys.append(unquote(value))  # a plus stays one: no key has a space
        else:
            rest.append(part)
    return "&".join(rest), keys[0] if keys else None


def hidden(text: str) -> str:
    """Return a text for a log, with what follows ``key=`` and the like hidden."""
    return _IN_TEXT.sub(lambda match: (match[1] or match[2]) + _HIDDEN, text)
