"""Reads ``a=1&b=2``, a query or a form, as an event: the bytes in, a mapping out.

A rule without I/O, the one of https://url.spec.whatwg.org/#urlencoded-parsing:
``+`` is a space, and escapes that are none stay as they are. All values are text. A name that
comes again makes an array of its values. Text is UTF-8; what is not is read in the encoding that
the form names, or that the settings name for all. What that can't read either becomes U+FFFD.
"""

import re
from urllib.parse import unquote_to_bytes

from estat.errors import Refused
from estat.events import charsets

#: Fields of one event; empty ones (``a=1&&b=2``) count, though they are skipped.
MAX_FIELDS = 1000

#: The field in which a browser tells the encoding of a form.
_CHARSET = re.compile(rb"(?:^|&)_charset_=([^&]*)")

#: What no encoder of forms leaves in a name as it is.
_NOT_IN_NAME = re.compile(rb'[\x00-\x20"<>{}\x7f]|://')

Fields = dict[str, str | list[str]]


def parse(data: bytes, charset: str | None = None) -> Fields:
    """Return the fields. Raises Refused if there are none, or too many.

    ``charset`` is the codec for what is not UTF-8 and names no encoding itself.
    """
    separators = data.count(b"&")
    if separators >= MAX_FIELDS:
        raise Refused("too_many_fields", f"{separators + 1} fields; at most {MAX_FIELDS}")
    named = _CHARSET.search(data)
    if named:
        charset = charsets.codec(unquote_to_bytes(named[1]).decode("latin-1")) or charset
    found: Fields = {}
    for part in data.split(b"&"):
        if not part:
            continue
        name, _, value = part.partition(b"=")
        key, text = _text(name, charset), _text(value, charset)
        known = found.get(key)
        if known is None:
            found[key] = text
        elif isinstance(known, list):
            known.append(text)
        else:
            found[key] = [known, text]
    if not found:
        raise Refused("empty_body", "the request has no field")
    return found


def is_form(data: bytes) -> bool:
    """Tell whether a text may be a form: else it is JSON or other text under a wrong type."""
    name, *more = re.split(b"[=&]", data, maxsplit=1)
    return bool(more) and not _NOT_IN_NAME.search(name) and b"\n" not in data


def _text(data: bytes, charset: str | None) -> str:
    if b"+" in data:
        data = data.replace(b"+", b" ")
    if b"%" in data:
        data = unquote_to_bytes(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(charset or "utf-8", "replace")
