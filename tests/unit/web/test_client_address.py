"""The client's address, whatever a client writes into the fields that tell it."""

from ipaddress import ip_network

import pytest

from estat.web.client_address import ClientAddress

PEER = "10.0.0.9"
NETWORKS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
CLIENT, FORGED = "203.0.113.7", "1.1.1.1"


def find(trusted, forwarded_for=None, *, header="auto", peer=PEER, **fields):
    """Return the address that is found; ``fields`` are further ones, as WSGI names them."""
    environ = {"REMOTE_ADDR": peer, **{f"HTTP_{name}": value for name, value in fields.items()}}
    if forwarded_for is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded_for
    return ClientAddress(trusted, header).find(environ)


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
    assert find(hops, header) == client


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
    assert find(NETWORKS, header, peer=peer) == client


@pytest.mark.parametrize(
    ("hops", "value", "client"),
    [
        (1, "for=203.0.113.7", CLIENT),
        (1, "For=203.0.113.7;proto=https;by=10.0.0.1", CLIENT),
        (1, 'proto=https; for="203.0.113.7:4711"', CLIENT),
        (1, 'for="[2001:DB8::1]:4711"', "2001:db8::1"),
        (1, 'for="[2001:db8::1]"', "2001:db8::1"),
        (1, 'for="203.0.113.7:_port"', CLIENT),
        (1, 'for=1.1.1.1, for=203.0.113.7;host="a,for=9.9.9.9;b\\""', CLIENT),
        (1, 'for="1.1.1.1, for=203.0.113.7', CLIENT),
        (1, 'for="1.1.1.1, for="[2001:db8::7]"', "2001:db8::7"),
        (1, 'x="\\, for="203.0.113.7"', CLIENT),
        (2, "for=1.1.1.1, for=203.0.113.7, for=10.0.0.1", CLIENT),
        (2, "for=203.0.113.7", PEER),
        (1, "for=_hidden", PEER),
        (1, "for=unknown", PEER),
        (1, "for=1.1.1.1, proto=https", PEER),
        (1, "for=1.1.1.1;for=2.2.2.2", PEER),
        (1, "for=1.1.1.1;;=", PEER),
        (1, "for=1.1.1.1 x", PEER),
        (1, 'for="1.1.1.1', PEER),
        (1, "203.0.113.7", PEER),
        (1, "", PEER),
        (0, "for=1.1.1.1", PEER),
    ],
)
def test_without_x_forwarded_for_the_nth_element_of_forwarded_counts(hops, value, client):
    assert find(hops, FORWARDED=value) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=1.1.1.1, for=203.0.113.7, for=10.1.1.1", CLIENT),
        ('for=1.1.1.1, for=203.0.113.7, for="[fd00::2]:80"', CLIENT),
        ("for=203.0.113.7, for=_hidden, for=10.1.1.1", "10.1.1.1"),
        ("for=10.3.3.3", "10.3.3.3"),
    ],
)
def test_with_networks_the_first_untrusted_element_of_forwarded_counts(value, client):
    assert find(NETWORKS, FORWARDED=value) == client


@pytest.mark.parametrize("trusted", [1, NETWORKS])
def test_a_forged_forwarded_does_not_win_over_x_forwarded_for(trusted):
    assert find(trusted, CLIENT, FORWARDED="for=1.1.1.1") == CLIENT


@pytest.mark.parametrize("trusted", [1, NETWORKS])
def test_a_named_field_is_the_only_one_that_counts(trusted):
    forwarded = {"FORWARDED": f"for={CLIENT}"}
    assert find(trusted, FORGED, header="forwarded", **forwarded) == CLIENT
    assert find(trusted, FORGED, header="forwarded") == PEER
    assert find(trusted, CLIENT, header="x-forwarded-for", FORWARDED="for=1.1.1.1") == CLIENT
    assert find(trusted, header="x-forwarded-for", FORWARDED="for=1.1.1.1") == PEER


VIEWER = {"CLOUDFRONT_VIEWER_ADDRESS": f"{CLIENT}:4711"}
FORGED_VIEWER = {"CLOUDFRONT_VIEWER_ADDRESS": f"{FORGED}:4711"}


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.7:4711", CLIENT),
        ("2001:DB8::1:4711", "2001:db8::1"),
        ("2001:db8:::4711", "2001:db8::"),
        ("2001:db8:1:2:3:4:5:6:4711", "2001:db8:1:2:3:4:5:6"),
        ("::ffff:203.0.113.7:4711", CLIENT),
        ("203.0.113.7", PEER),
        ("2001:db8:1:2:3:4:5:6", PEER),
        ("203.0.113.7:4711,1.1.1.1:80", PEER),
        ("", PEER),
    ],
)
def test_the_address_that_cloudfront_writes_is_what_comes_before_the_last_colon(value, client):
    field = {"CLOUDFRONT_VIEWER_ADDRESS": value}
    assert find(2, FORGED, header="cloudfront-viewer-address", **field) == client


def test_with_hops_cloudfronts_field_counts_only_where_the_setting_says_so():
    assert find(1, **FORGED_VIEWER) == PEER
    assert find(1, CLIENT, **FORGED_VIEWER) == CLIENT
    assert find(0, header="cloudfront-viewer-address", **FORGED_VIEWER) == PEER


def test_with_networks_cloudfronts_field_counts_if_all_who_passed_it_on_are_trusted():
    assert find(NETWORKS, **VIEWER) == CLIENT
    assert find(NETWORKS, "10.3.3.3", **VIEWER) == CLIENT
    assert find(NETWORKS, CLIENT, **FORGED_VIEWER) == CLIENT
    assert find(NETWORKS, f"garbage, {PEER}", **FORGED_VIEWER) == PEER
    assert find(NETWORKS, peer=CLIENT, **FORGED_VIEWER) == CLIENT


def test_with_networks_and_the_setting_cloudfronts_field_counts_from_a_trusted_peer():
    setting = {"header": "cloudfront-viewer-address"}
    assert find(NETWORKS, FORGED, **setting, **VIEWER) == CLIENT
    assert find(NETWORKS, FORGED, **setting) == PEER
    assert find(NETWORKS, peer=CLIENT, **setting, **FORGED_VIEWER) == CLIENT


def test_a_chain_without_end_is_looked_at_as_far_as_a_chain_of_proxies_may_go():
    assert find(NETWORKS, "203.0.113.7" + ",10.0.0.1" * 100_000) == "10.0.0.1"
    assert find(NETWORKS, FORWARDED="for=203.0.113.7" + ",for=10.0.0.1" * 100_000) == "10.0.0.1"
