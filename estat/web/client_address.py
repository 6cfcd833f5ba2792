"""Finds the client's address in what the proxies in front say, and makes of it what is stored.

Only what a trusted proxy wrote counts. Proxies append to a field on its right side, so
nothing that a client writes into the field itself can win. CloudFront-Viewer-Address is
different: a proxy that knows it replaces it, and all others pass on what the client wrote.
So it proves nothing by itself; docs/record.md has the rule.

    Forwarded: for="[2001:db8::1]:4711";proto=https, for=203.0.113.7        (RFC 7239)

The elements of Forwarded, too, are told apart from the right: a quote that a client leaves
open on the left can't swallow what trusted proxies wrote. An address is used in the form
that ``ipaddress`` writes: lower case, the shortest IPv6 text, IPv4 for an IPv4-mapped
address, without zone, port, brackets or quotes. IP_MODE says what is stored of it:

    full      203.0.113.7                         2001:db8:1:2::3
    truncate  203.0.113.0                         2001:db8:1::
    hash      32 hexadecimal digits: the first half of HMAC-SHA-256, keyed with IP_HASH_KEY
    drop      the empty string

Where there is no address (a unix socket), the empty string is stored.
"""

import hmac
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from wsgiref.types import WSGIEnvironment

_X_FORWARDED_FOR = "HTTP_X_FORWARDED_FOR"
_FORWARDED = "HTTP_FORWARDED"
_CLOUDFRONT = "HTTP_CLOUDFRONT_VIEWER_ADDRESS"

#: How many entries are looked at: no chain of proxies is longer.
_MAX_ENTRIES = 100

_MAX_ADDRESS_CHARS = 64  # quoted, in brackets, with zone and port an IPv6 address is shorter

# a port is a number, or hidden under a name (RFC 7239, 6)
_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_FORM = re.compile(rf'(?P<quote>"?)(?:\[([^\]"]+)\]{_PORT}|([0-9.]+){_PORT}|([^\]\["]+))(?P=quote)')

#: How much of Forwarded is looked at: many fields of one name make a long list.
_MAX_FORWARDED_CHARS = 8192

# for the text read backwards, where a backslash comes after the quote that it escapes
# no group is possessive: Python before 3.11.5 matches too little then
# https://github.com/python/cpython/issues/106052
_ELEMENT_BACKWARDS = re.compile(r'(?:[^",]|"(?:[^"]|"\\)*"(?!\\))*')
_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'("(?:[^"\\]|\\.)*"|[^",; \t]*)[ \t]*(?:;|$)'
)

#: 128 bits of the digest, so that two addresses never share them.
HASH_DIGITS = 32

#: How many addresses are remembered with their stored form: most clients send more than once.
_REMEMBERED = 8192


class ClientAddress:
    """The rule of TRUSTED_PROXIES and CLIENT_IP_HEADER.

    ``trusted`` is a number of hops, or the networks that the proxies are in.
    """

    def __init__(
        self, trusted: int | tuple[IPv4Network | IPv6Network, ...], header: str = "auto"
    ) -> None:
        self._hops = trusted if isinstance(trusted, int) else None
        self._networks = () if isinstance(trusted, int) else trusted
        self._is_trusted = lru_cache(maxsize=8192)(self._in_networks)
        self._auto = header == "auto"
        self._x_forwarded_for = header in ("auto", "x-forwarded-for")
        self._forwarded = header in ("auto", "forwarded")

    def find(self, environ: WSGIEnvironment) -> str:
        """Return the client's address; the empty string for a peer without one (a unix socket)."""
        peer = normalise(environ.get("REMOTE_ADDR", "")) or ""
        hops = self._hops
        if hops == 0 or (hops is None and not self._is_trusted(peer)):
            return peer
        if not (self._x_forwarded_for or self._forwarded):
            return _viewer(environ) or peer
        if hops is None:
            return self._by_networks(peer, environ)
        entries = self._entries(environ, hops)
        return (normalise(entries[-hops]) if len(entries) >= hops else None) or peer

    def _by_networks(self, peer: str, environ: WSGIEnvironment) -> str:
        """Return the first address from the right that is in no trusted network."""
        nearest = peer
        for entry in islice(reversed(self._entries(environ, _MAX_ENTRIES)), _MAX_ENTRIES):
            address = normalise(entry)
            if address is None:
                return nearest
            if not self._is_trusted(address):
                return address
            nearest = address
        # all that have passed this on are trusted, and any of them could name any address anyway
        return (_viewer(environ) if self._auto else None) or nearest

    def _entries(self, environ: WSGIEnvironment, limit: int) -> list[str]:
        """Return what the proxies wrote: the last ``limit`` entries, with the rest as one more."""
        if self._x_forwarded_for:
            value: str | None = environ.get(_X_FORWARDED_FOR)
            if value:
                return value.rsplit(",", limit)
        value = environ.get(_FORWARDED) if self._forwarded else None
        return list(islice(forwarded_nodes(value), limit))[::-1] if value else []

    def _in_networks(self, address: str) -> bool:
        if not address:
            return True  # a unix socket: only a local proxy can be behind it
        parsed = ip_address(address)
        return any(parsed in network for network in self._networks)


def _viewer(environ: WSGIEnvironment) -> str | None:
    """Return the address of CloudFront-Viewer-Address: there is always a port, never a bracket."""
    address, _, port = environ.get(_CLOUDFRONT, "").strip().rpartition(":")
    return normalise(address) if port.isdecimal() else None


def stored_form(mode: str, key: str) -> Callable[[str], str]:
    """Return the function that makes of an address what IP_MODE stores of it."""
    if mode == "full":
        return str
    if mode == "drop":
        return lambda _: ""
    secret = key.encode()

    @lru_cache(maxsize=_REMEMBERED)
    def shorten(address: str) -> str:
        if not address:
            return ""
        if mode == "hash":
            return hmac.digest(secret, address.encode(), "sha256").hex()[:HASH_DIGITS]
        prefix = 48 if ":" in address else 24
        return str(ip_network(f"{address}/{prefix}", strict=False).network_address)

    return shorten


def normalise(text: str) -> str | None:
    """Return an address in its usual form; None if the text is no address."""
    text = text.strip()
    # checked before the cache, which clients fill
    return _normalise(text) if len(text) <= _MAX_ADDRESS_CHARS else None


@lru_cache(maxsize=8192)
def _normalise(text: str) -> str | None:
    match = _FORM.fullmatch(text)
    if not match:
        return None
    try:
        address = ip_address(match[2] or match[3] or match[4])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address)))  # without its zone, which means nothing elsewhere
    return str(address)


def forwarded_nodes(value: str) -> Iterator[str]:
    """Yield the ``for`` of each element, from the right: where the request came from.

    It is as the proxy wrote it, quotes included. It is empty where an element has none or is
    malformed. Nothing is read to the left of a place where elements can't be told apart.
    """
    backwards = value[: -_MAX_FORWARDED_CHARS - 1 : -1]
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
