"""Regular expressions mean the same with every Python that the server runs on."""

import re

from tests.support.server import ROOT

#: A group that never gives anything back, or what is put in place of one. Python before 3.11.5 lets
#: it match too little if something in it may be given back.
#: https://github.com/python/cpython/issues/106052
_POSSESSIVE = re.compile(r"(?:(?<!\\)\)|%b)(?:[*+?]|\{\d*,?\d*\})\+")

_FIXED_TEXT = "(?://)?+"  # has nothing to give back


def test_no_group_is_possessive() -> None:
    found = {
        path.name
        for path in (ROOT / "estat").rglob("*.py")
        if _POSSESSIVE.search(path.read_text(encoding="utf-8").replace(_FIXED_TEXT, ""))
    }
    assert found == set()
