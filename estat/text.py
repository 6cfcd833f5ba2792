"""Makes text that others wrote fit to be shown, in a log, in an answer, on a terminal.

``shown`` leaves nothing that acts on a terminal or breaks a line, ``hidden`` leaves no secret.
A secret is known by its place in the text: behind the name of a field or a setting, in a URL's
user information, in a query. Those of the settings (``keep_secret``) are known anywhere.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

_HIDDEN = "(hidden)"

# between a name and its value, also as repr() and a URL write it
_IS = r"['\"]?(?:\s|\\[nrt]|%20)*(?:[:=]|%3a|%3d)(?:[\s:='\"]|\\[nrt]|%20|%3a|%3d)*"
_BLANK = r"(?:[\s:=]|\\[nrt]|%20|%3a|%3d)+"
_NAMES = (
    "passw(?:or)?d|secret|(?:aws)?[_-]?secret[_-]?access[_-]?key|ip[_-]?hash[_-]?key"
    "|(?:access|security|session)?[_-]?token"
)

#: The first group of each stays.
_PLACES = re.compile(
    # a whole field of a request's head
    rf"(?i)((?:authorization|x[-_]write[-_]key){_BLANK}|(?:cookie|(?:write|api)[-_]?keys?){_IS})"
    r"(?!\(hidden\))[^'\"\\\r\n]+"
    rf"|(\b(?:bearer|basic){_BLANK})[A-Za-z0-9._~+/-]+=*"
    # a query's key
    r"|((?:^|[?&;\s'\"(]|%3f|%26|%3b)(?:k|%6b)(?:e|%65)(?:y|%79)(?:=|%3d))(?!\(hidden\))[^&;#\s'\"\\]+"
    # a URL's user and password, and both without the scheme
    r"|((?:[:=\s'\"(]|^)//|%2f%2f)(?!/)[^\s'\"<>]{1,512}(?=@|%40)"
    r"|((?:^|[\s'\"=(]))[^\s'\"/@:=]{1,128}:(?!/)[^\s'\"@]{1,512}(?=@)"
    rf"|((?<![a-z])(?:{_NAMES}){_IS})(?!\(hidden\))[^\s'\"&,;]+"
    # the form of AWS's secret keys
    r"|((?<![A-Za-z0-9/+=]))(?-i:(?=[a-z0-9/+]*[A-Z])(?=[A-Z0-9/+]*[a-z])(?=[A-Za-z/+]*[0-9]))"
    r"[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
)

#: A shorter one is hidden only by its place: it could be a part of any word.
_LEAST_KNOWN_CHARS = 6
_LEAST_BASE64_CHARS = 8

#: How often a text may be escaped for a URL.
_ROUNDS = 4

_known: set[str] = set()
_known_anywhere: list[re.Pattern[str]] = []


def keep_secret(secrets: Iterable[str]) -> None:
    """Hide these, beside those of former calls, wherever they stand: also escaped or in base64."""
    _known.update(form for secret in secrets for form in _forms(secret))
    longest_first = sorted(map(re.escape, _known), key=len, reverse=True)
    _known_anywhere[:] = [re.compile("(?i)" + "|".join(longest_first))] if longest_first else []


def _forms(secret: str) -> Iterator[str]:
    if len(secret) < _LEAST_KNOWN_CHARS:
        return
    yield secret
    yield quote(secret, safe="")
    data = secret.encode(errors="replace")
    for offset in range(3):
        # what does not depend on the bytes before and behind it
        encoded = base64.b64encode(bytes(offset) + data).decode()
        inner = encoded[(0, 2, 3)[offset] : (offset + len(data)) * 8 // 6]
        if len(inner) >= _LEAST_BASE64_CHARS:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


def hidden(text: str) -> str:
    """Return a text with ``(hidden)`` for each secret; unescaped, where that shows one."""
    found = looked_at = _without_secrets(text)
    for _ in range(_ROUNDS):
        unescaped = unquote(looked_at)
        if unescaped == looked_at:
            break
        looked_at = _without_secrets(unescaped)
        if looked_at != unescaped:
            found = looked_at
    return found


def _without_secrets(text: str) -> str:
    for known in _known_anywhere:
        text = known.sub(_HIDDEN, text)
    return _PLACES.sub(lambda match: (match[match.lastindex or 0]) + _HIDDEN, text)


def safe(text: str, max_chars: int | None = None) -> str:
    """Return a text as anybody may read it anywhere: ``hidden``, then ``shown``."""
    return shown(hidden(text), max_chars)


def shown(text: str, max_chars: int | None = None) -> str:
    r"""Cut a text, and escape (``\x1b``) what could upset a terminal or a line."""
    cut = text if max_chars is None or len(text) <= max_chars else f"{text[:max_chars]}…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
