"""What is stored of an address."""

import hashlib
import hmac

import pytest

from estat.web.client_address import HASH_DIGITS, stored_form

KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("mode", "address", "stored"),
    [
        ("full", "203.0.113.7", "203.0.113.7"),
        ("full", "2001:db8::1", "2001:db8::1"),
        ("truncate", "203.0.113.7", "203.0.113.0"),
        ("truncate", "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("truncate", "::1", "::"),
        ("drop", "203.0.113.7", ""),
        ("drop", "2001:db8::1", ""),
    ],
)
def test_an_address_is_stored_as_the_mode_says(mode, address, stored):
    assert stored_form(mode, "")(address) == stored


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::1"])
def test_a_hash_is_the_beginning_of_an_hmac_of_the_address_as_text(address):
    digest = hmac.new(KEY.encode(), address.encode(), hashlib.sha256).hexdigest()
    assert stored_form("hash", KEY)(address) == digest[:HASH_DIGITS]


@pytest.mark.parametrize("mode", ["full", "truncate", "hash", "drop"])
def test_no_address_stays_none(mode):
    assert stored_form(mode, KEY)("") == ""
