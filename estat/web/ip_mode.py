"""What is stored of a client's address: IP_MODE.

    full      203.0.113.7                         2001:db8:1:2::3
    truncate  203.0.113.0                         2001:db8:1::
    hash      32 hexadecimal digits: the first half of HMAC-SHA-256, keyed with IP_HASH_KEY
    drop      the empty string

The address comes in its usual form, so an IPv4-mapped one is IPv4 here. None at all (a
unix socket) stays the empty string.
"""

import hmac
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_network

#: Of the digest: 128 bits, so that two addresses never share one.
HASH_DIGITS = 32

#: Addresses whose stored form is remembered: most clients send more than once.
_REMEMBERED = 8192


def stored_form(mode: str, key: str) -> Callable[[str], str]:
    """Return what turns an address into what is stored of it."""
    if mode == "full":
        return str
    if mode == "drop":
        return _drop
    secret = key.encode()

    def shorten(address: str) -> str:
        return _truncate(address) if mode == "truncate" else _hash(secret, address)

    return lru_cache(maxsize=_REMEMBERED)(shorten)


def _drop(address: str) -> str:
    del address
    return ""


def _truncate(address: str) -> str:
    if not address:
        return ""
    prefix = 48 if ":" in address else 24
    return str(ip_network(f"{address}/{prefix}", strict=False).network_address)


def _hash(secret: bytes, address: str) -> str:
    if not address:
        return ""
    return hmac.digest(secret, address.encode(), "sha256").hex()[:HASH_DIGITS]
