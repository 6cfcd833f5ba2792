"""Whatever a client writes, the address is what the trusted proxies wrote."""

from ipaddress import IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from estat.web.client_address import ClientAddress

PEER = "10.0.0.9"
NETWORKS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
HEADERS = ("auto", "x-forwarded-for", "forwarded", "cloudfront-viewer-address")

# what a client sends: anything, and what is made to be mistaken for what a proxy writes
pieces = st.sampled_from(
    [
        ",",
        '"',
        "\\",
        ";",
        "=",
        " ",
        "for=",
        "For=",
        "1.1.1.1",
        "[2001:db8::bad]",
        ":80",
        "unknown",
        "_hidden",
        "10.0.0.1",
        'for="',
        '", ',
        "host=",
    ]
) | st.characters(max_codepoint=255)
written = st.lists(pieces, max_size=15).map("".join)
fields = st.none() | written
trusted = st.integers(1, 2**24 - 1).map(lambda n: f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
chains = st.lists(trusted, max_size=3)


def usual(text):
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


def outside(text):
    """Tell whether an address is in no trusted network in its usual form, too."""
    return not any(ip_address(usual(text)) in network for network in NETWORKS)


clients = st.ip_addresses().map(str).filter(outside)


@st.composite
def forms(draw, address):
    """Write an address in one of the forms that proxies use."""
    if ":" not in address:
        return draw(st.sampled_from([address, f"{address}:4711", f'"{address}"']))
    long = ip_address(address).exploded
    return draw(
        st.sampled_from(
            [
                address,
                address.upper(),
                long,
                f"[{address}]",
                f"[{long}]:80",
                f'"[{address}]:80"',
                f"{address}%eth0",
            ]
        )
    )


@st.composite
def nodes(draw, address):
    """Write an address as an element of Forwarded."""
    port = draw(st.sampled_from(["", ":80", ":_x"]))
    node = f'"[{address}]{port}"' if ":" in address else f'"{address}{port}"'
    if ":" not in address and not port:
        node = draw(st.sampled_from([node, address]))
    before = draw(st.sampled_from(["", "proto=https;", 'host="a,b;for=9.9.9.9\\"";']))
    return before + draw(st.sampled_from(["for=", "For="])) + node


def appended(sent, entries):
    """Return a field after proxies have appended to what was sent."""
    return ", ".join(entries if sent is None else [sent, *entries])


def environ(**given):
    return {"REMOTE_ADDR": PEER} | {
        f"HTTP_{name}": value for name, value in given.items() if value is not None
    }


@given(st.data(), clients, chains, fields, fields, fields)
def test_behind_proxies_that_append_to_x_forwarded_for(
    data, client, chain, sent, forwarded, viewer
):
    entries = [data.draw(forms(address)) for address in (client, *chain)]
    given_ = environ(
        X_FORWARDED_FOR=appended(sent, entries),
        FORWARDED=forwarded,
        CLOUDFRONT_VIEWER_ADDRESS=viewer,
    )
    for header in ("auto", "x-forwarded-for"):
        assert ClientAddress(len(entries), header).find(given_) == usual(client)
        assert ClientAddress(NETWORKS, header).find(given_) == usual(client)
        assert ClientAddress(0).find(given_) == PEER


@given(st.data(), clients, chains, fields, fields, fields)
def test_behind_proxies_that_append_to_forwarded(data, client, chain, sent, forwarded_for, viewer):
    entries = [data.draw(nodes(address)) for address in (client, *chain)]
    given_ = environ(
        FORWARDED=appended(sent, entries),
        X_FORWARDED_FOR=forwarded_for,
        CLOUDFRONT_VIEWER_ADDRESS=viewer,
    )
    assert ClientAddress(len(entries), "forwarded").find(given_) == usual(client)
    assert ClientAddress(NETWORKS, "forwarded").find(given_) == usual(client)
    if not forwarded_for:
        assert ClientAddress(len(entries)).find(given_) == usual(client)
        assert ClientAddress(NETWORKS).find(given_) == usual(client)


@given(clients, fields, fields)
def test_behind_cloudfront_which_replaces_its_field(client, forwarded_for, forwarded):
    given_ = environ(
        CLOUDFRONT_VIEWER_ADDRESS=f"{client}:4711",
        X_FORWARDED_FOR=forwarded_for,
        FORWARDED=forwarded,
    )
    for trusted_ in (1, 2, NETWORKS):
        found = ClientAddress(trusted_, "cloudfront-viewer-address").find(given_)
        assert found == usual(client)


@given(
    st.sampled_from([PEER, "", "203.0.113.7", "fd00::1", "::ffff:10.0.0.9", "fe80::1%eth0"]),
    fields,
    fields,
    fields,
    st.integers(0, 4) | st.just(NETWORKS),
    st.sampled_from(HEADERS),
)
def test_anything_yields_an_address_or_the_peer(
    peer, forwarded_for, forwarded, viewer, trusted_, header
):
    given_ = environ(
        X_FORWARDED_FOR=forwarded_for, FORWARDED=forwarded, CLOUDFRONT_VIEWER_ADDRESS=viewer
    ) | {"REMOTE_ADDR": peer}
    found = ClientAddress(trusted_, header).find(given_)
    assert found == (usual(found) if found else peer)


@given(
    st.sampled_from(["203.0.113.7", "2001:db8::7"]),
    fields,
    fields,
    fields,
    st.sampled_from(HEADERS),
)
def test_a_peer_that_is_not_trusted_is_the_client_whatever_it_says(
    peer, forwarded_for, forwarded, viewer, header
):
    given_ = environ(
        X_FORWARDED_FOR=forwarded_for, FORWARDED=forwarded, CLOUDFRONT_VIEWER_ADDRESS=viewer
    ) | {"REMOTE_ADDR": peer}
    assert ClientAddress(NETWORKS, header).find(given_) == peer
    if header == "auto":
        assert ClientAddress(0).find(given_) == peer
