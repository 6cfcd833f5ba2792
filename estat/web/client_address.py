"""Finds the address of the client among what the proxies in front say.

Only entries that a trusted proxy wrote count, and proxies append on the right:
what a client puts into a field itself can never win. A field that proxies replace
instead (CloudFront-Viewer-Address) proves nothing by itself, for one that
does not know it passes on what a client wrote; docs/record.md has the rule.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import islice
from typing import Any

from estat.web import forwarded
from estat.web.address import normalise, of_cloudfront

_X_FORWARDED_FOR = "HTTP_X_FORWARDED_FOR"
_FORWARDED = "HTTP_FORWARDED"
_CLOUDFRONT = "HTTP_CLOUDFRONT_VIEWER_ADDRESS"

#: Entries that are looked at: no chain of proxies is longer.
_MAX_ENTRIES = 100


class ClientAddress:
    """The rule of TRUSTED_PROXIES, a number of hops or networks, and of CLIENT_IP_HEADER."""

    def __init__(
        self, trusted: int | tuple[IPv4Network | IPv6Network, ...], header: str = "auto"
    ) -> None:
        self._hops = trusted if isinstance(trusted, int) else None
        self._networks = () if isinstance(trusted, int) else trusted
        self._is_trusted = lru_cache(maxsize=8192)(self._in_networks)
        self._auto = header == "auto"
        self._x_forwarded_for = header in ("auto", "x-forwarded-for")
        self._forwarded = header in ("auto", "forwarded")

    def find(self, environ: Mapping[str, Any]) -> str:
        """Return the client's address; the empty string for a peer without one (a unix socket)."""
        peer = normalise(environ.get("REMOTE_ADDR", "")) or ""
        if self._hops is None:
            return self._by_networks(peer, environ)
        if self._hops == 0:
            return peer
        return self._by_hops(self._hops, environ) or peer

    def _by_hops(self, hops: int, environ: Mapping[str, Any]) -> str | None:
        if self._x_forwarded_for:
            value = environ.get(_X_FORWARDED_FOR)
            if value:
                entries = value.rsplit(",", hops)
                return normalise(entries[-hops]) if len(entries) >= hops else None
        if self._forwarded:
            value = environ.get(_FORWARDED)
            if not value:
                return None
            for number, node in enumerate(forwarded.nodes(value), 1):
                if number == hops:
                    return normalise(node)
            return None
        return None if self._x_forwarded_for else _viewer(environ)

    def _by_networks(self, peer: str, environ: Mapping[str, Any]) -> str:
        """Return the first address from the right that is in no trusted network."""
        if not self._is_trusted(peer):
            return peer
        if not (self._x_forwarded_for or self._forwarded):
            return _viewer(environ) or peer
        nearest = peer
        for entry in self._entries(environ):
            address = normalise(entry)
            if address is None:
                return nearest
            if not self._is_trusted(address):
                return address
            nearest = address
        # whoever is known to have passed this on is trusted, and could name any address anyway
        return (_viewer(environ) if self._auto else None) or nearest

    def _entries(self, environ: Mapping[str, Any]) -> Iterator[str]:
        """Return what the proxies wrote, the nearest one first."""
        if self._x_forwarded_for:
            value = environ.get(_X_FORWARDED_FOR)
            if value:
                return islice(reversed(value.rsplit(",", _MAX_ENTRIES)), _MAX_ENTRIES)
        value = environ.get(_FORWARDED) if self._forwarded else None
        return forwarded.nodes(value) if value else iter(())

    def _in_networks(self, address: str) -> bool:
        if not address:
            return True  # a unix socket: only a local proxy can be behind it
        parsed = ip_address(address)
        return any(parsed in network for network in self._networks)


def _viewer(environ: Mapping[str, Any]) -> str | None:
    return of_cloudfront(environ.get(_CLOUDFRONT, ""))
