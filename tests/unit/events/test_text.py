"""A client's text in a reason: short, and harmless on a terminal."""

import pytest

from estat.events.text import excerpt


def test_a_short_text_stays_as_it_is():
    assert excerpt("text/html é", 100) == "text/html é"


def test_a_long_text_is_cut_and_says_so():
    assert excerpt("x" * 101, 100) == "x" * 100 + "…"


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\r", "\x00", "\x85", "\u202e", "\ud800"])
def test_what_could_upset_a_terminal_is_replaced(text):
    shown = excerpt(text, 100)
    assert shown.isprintable()
    assert "\ufffd" in shown
