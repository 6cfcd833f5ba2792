"""Reads ``a=1&b=2``, a query or a form, as an event: the bytes in, a mapping out.

A rule without I/O, the one of https://url.spec.whatwg.org/#urlencoded-parsing:
``+`` is a space, escapes that are none stay as they are, bytes that are not UTF-8
become U+FFFD. All values are text. A name that comes again makes an array of its values.
"""

from urllib.parse import unquote_to_bytes

from estat.errors import Refused

#: Fields of one event; empty ones (``a=1&&b=2``) count, though they are skipped.
MAX_FIELDS = 1000

#: The write key in a query or a form; it never becomes part of an event.
KEY_PARAMETER = "key"

Fields = dict[str, str | list[str]]


def parse(data: bytes) -> Fields:
    """Return the fields. Raises Refused if there are none, or too many."""
    separators = data.count(b"&")
    if separators >= MAX_FIELDS:
        raise Refused("too_many_fields", f"{separators + 1} fields; at most {MAX_FIELDS}")
    found: Fields = {}
    for part in data.split(b"&"):
        if not part:
            continue
        name, _, value = part.partition(b"=")
        key, text = _text(name), _text(value)
        if key == KEY_PARAMETER:
            continue
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


def _text(data: bytes) -> str:
    if b"+" in data:
        data = data.replace(b"+", b" ")
    if b"%" in data:
        data = unquote_to_bytes(data)
    return data.decode("utf-8", "replace")
