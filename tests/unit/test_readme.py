"""README.md leads somewhere, and README.ko.md keeps step with it."""

import re

import pytest

from tests.support.page import ROOT, sections

READMES = ["README.md", "README.ko.md"]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page):
    return (ROOT / page).read_text()


def prose(page):
    return _BLOCK.sub("", text_of(page))


def links(page):
    return sorted(re.findall(r"\]\(([^)]+)\)", prose(page)))


@pytest.mark.parametrize("page", READMES)
def test_every_link_leads_to_a_file(page):
    assert [link for link in links(page) if not (ROOT / link.split("#")[0]).exists()] == []


def test_the_headings_are_as_many_and_as_deep():
    english, korean = (re.findall(r"^#+(?= )", prose(page), re.MULTILINE) for page in READMES)
    assert korean == english


def test_the_commands_are_the_same():
    english, korean = ([s.blocks for s in sections(page)] for page in READMES)
    assert korean == english


def test_the_diagram_is_the_same():
    english, korean = (dict(_BLOCK.findall(text_of(page)))["text"] for page in READMES)
    assert korean == english


def test_the_tables_are_about_the_same_things():
    english, korean = (re.findall(r"^\| (`[^|]+`)", prose(page), re.MULTILINE) for page in READMES)
    assert korean == [name.replace(" (default)", " (기본값)") for name in english]


def test_the_links_are_the_same_but_for_that_to_the_other():
    english, korean = ([link for link in links(page) if link not in READMES] for page in READMES)
    assert korean == english


def test_the_names_in_code_are_the_same():
    english, korean = (sorted(re.findall(r"`[^`]+`", prose(page))) for page in READMES)
    assert korean == english
