"""README.md leads somewhere, and README.ko.md keeps step with it."""

import re

import pytest

from tests.support.page import blocks, prose
from tests.support.server import ROOT

READMES = ["README.md", "README.ko.md"]


def links(page):
    inline = re.findall(r"\]\(([^)]+)\)", prose(page))
    return sorted(inline + re.findall(r"^\[\w+\]: (\S+)$", prose(page), re.MULTILINE))


@pytest.mark.parametrize("page", READMES)
def test_every_link_leads_to_a_file(page):
    ours = [link.split("#")[0] for link in links(page) if not link.startswith("https://")]
    assert [link for link in ours if not (ROOT / link).exists()] == []


def test_the_headings_are_as_many_and_as_deep():
    english, korean = (re.findall(r"^#+(?= )", prose(page), re.MULTILINE) for page in READMES)
    assert korean == english


def test_the_commands_and_the_diagram_are_the_same():
    english, korean = ([(b.language, _typed(b.code)) for b in blocks(page)] for page in READMES)
    assert {language for language, _ in english} == {"sh", "text"}
    assert korean == english


def _typed(code):
    """Leave out the comments, which are translated."""
    return re.sub(r"\s+# .*", "", code)


def test_the_tables_are_about_the_same_things():
    english, korean = (re.findall(r"^\| (`[^|]+`)", prose(page), re.MULTILINE) for page in READMES)
    assert korean == [name.replace(" (default)", " (기본값)") for name in english]


def test_the_links_are_the_same_but_for_that_to_the_other():
    english, korean = ([link for link in links(page) if link not in READMES] for page in READMES)
    assert korean == english


def test_the_names_in_code_are_the_same():
    english, korean = (sorted(re.findall(r"`[^`]+`", prose(page))) for page in READMES)
    assert korean == english
