"""Reads the Forwarded field (RFC 7239), from the right.

    Forwarded: for="[2001:db8::1]:4711";proto=https, for=203.0.113.7

Elements are told apart from the right, where trusted proxies append: a quote that
a client leaves open on the left can't swallow what they wrote.
"""

import re
from collections.abc import Iterator

#: What is looked at: many fields of one name make a long list.
_MAX_CHARS = 8192

# of the text read backwards, where a backslash comes after the quote that it escapes
_ELEMENT_BACKWARDS = re.compile(r'(?:[^",]|"(?:[^"]|"\\)*+"(?!\\))*+')
_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'("(?:[^"\\]|\\.)*+"|[^",; \t]*)[ \t]*(?:;|$)'
)


def nodes(value: str) -> Iterator[str]:
    """Yield what each element says that the request came from (its ``for``), from the right.

    It is as the proxy wrote it, quotes included; empty if an element does not say it or is
    malformed. What is left of an element that can't be told from others is not read.
    """
    backwards = value[: -_MAX_CHARS - 1 : -1]
    at = 0
    while True:
        match = _ELEMENT_BACKWARDS.match(backwards, at)
        end = match.end() if match else at
        if backwards[end : end + 1] != ",":
            whole = end == len(value)
            yield _node(backwards[at:end][::-1]) if whole else ""
            return
        yield _node(backwards[at:end][::-1])
        at = end + 1


def _node(element: str) -> str:
    found = ""
    at = 0
    while at < len(element):
        pair = _PAIR.match(element, at)
        if not pair:
            return ""
        if pair[1].lower() == "for":
            if found:
                return ""
            found = pair[2]
        at = pair.end()
    return found
