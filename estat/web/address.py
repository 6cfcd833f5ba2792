"""Reads addresses as proxies write them, and gives them their usual form.

The usual form is what ``ipaddress`` writes: lower case, the shortest IPv6 text,
IPv4 for an IPv4-mapped address, without zone, port, brackets or quotes.
"""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_MAX_CHARS = 64  # quoted, in brackets, with zone and port an IPv6 address is shorter

# a port is a number, or hidden under a name (RFC 7239, 6)
_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_FORM = re.compile(rf'(?P<quote>"?)(?:\[([^\]"]+)\]{_PORT}|([0-9.]+){_PORT}|([^\]\["]+))(?P=quote)')


def normalise(text: str) -> str | None:
    """Return an address in its usual form; None if the text is none."""
    text = text.strip()
    # before the cache, which clients fill
    return _normalise(text) if len(text) <= _MAX_CHARS else None


def of_cloudfront(text: str) -> str | None:
    """Return the address of CloudFront-Viewer-Address: there is always a port, never a bracket."""
    address, _, port = text.strip().rpartition(":")
    return normalise(address) if port.isdecimal() else None


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
