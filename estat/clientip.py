"""Finds the address of the client among what the proxies in front say.

Only entries that a trusted proxy wrote count, and proxies append on the right:
what a client puts into X-Forwarded-For itself can never win.
"""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

_MAX_CHARS = 64  # an IPv6 address in brackets, with zone and port, is shorter


def normalise(text: str) -> str | None:
    """Return an address in its usual form, without port or brackets; None if it is none."""
    text = text.strip()
    # before the cache, which clients fill
    return _normalise(text) if len(text) <= _MAX_CHARS else None


@lru_cache(maxsize=8192)
def _normalise(text: str) -> str | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address)


class ClientAddress:
    """The rule of TRUSTED_PROXIES: a number of hops, or the proxies' networks."""

    def __init__(self, trusted: int | tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._hops = trusted if isinstance(trusted, int) else None
        self._networks = () if isinstance(trusted, int) else trusted
        self._is_trusted = lru_cache(maxsize=8192)(self._in_networks)

    def find(self, peer: str, forwarded_for: str | None) -> str:
        """Return the client's address; the empty string for a peer without one (a unix socket)."""
        known_peer = normalise(peer) or ""
        if not forwarded_for or self._hops == 0:
            return known_peer
        entries = forwarded_for.split(",")
        if self._hops is not None:
            if len(entries) < self._hops:
                return known_peer
            return normalise(entries[-self._hops]) or known_peer
        return self._first_untrusted(known_peer, entries)

    def _first_untrusted(self, known_peer: str, entries: list[str]) -> str:
        nearest = known_peer
        for entry in reversed(entries):
            if not self._is_trusted(nearest):
                return nearest
            address = normalise(entry)
            if address is None:
                return nearest
            nearest = address
        return nearest

    def _in_networks(self, address: str) -> bool:
        if not address:
            return True  # a unix socket: only a local proxy can be behind it
        parsed = ip_address(address)
        return any(parsed in network for network in self._networks)
