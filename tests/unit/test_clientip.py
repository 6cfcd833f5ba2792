"""The client's address, whatever a client writes into X-Forwarded-For."""

from ipaddress import ip_network

import pytest

from estat.clientip import ClientAddress

PEER = "10.0.0.9"
NETWORKS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("hops", "header", "client"),
    [
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "1.1.1.1, 203.0.113.7", "203.0.113.7"),
        (2, "1.1.1.1, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
        (2, "203.0.113.7", PEER),
        (0, "203.0.113.7", PEER),
        (1, None, PEER),
        (1, "", PEER),
        (1, "unknown", PEER),
        (1, "203.0.113.7:4711", "203.0.113.7"),
        (1, "[2001:db8::1]:4711", "2001:db8::1"),
        (1, "2001:DB8:0::1", "2001:db8::1"),
        (1, "::ffff:203.0.113.7", "203.0.113.7"),
        (1, '1.1.1.1"}', PEER),
    ],
)
def test_the_nth_entry_from_the_right_counts_and_nothing_else(hops, header, client):
    assert ClientAddress(hops).find(PEER, header) == client


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        (PEER, "1.1.1.1, 203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ("198.51.100.1", "1.1.1.1", "198.51.100.1"),
        (PEER, "10.3.3.3, 10.2.2.2", "10.3.3.3"),
        (PEER, "203.0.113.7, garbage, 10.1.1.1", "10.1.1.1"),
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
        ("", "203.0.113.7", "203.0.113.7"),
    ],
)
def test_with_networks_the_first_untrusted_address_from_the_right_counts(peer, header, client):
    assert ClientAddress(NETWORKS).find(peer, header) == client
