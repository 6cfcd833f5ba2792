"""The numbered invariants of docs/architecture.md are complete, and each names tests that exist."""

import ast
import re
from functools import cache

from tests.support.page import sections
from tests.support.server import ROOT

_ITEM = re.compile(r"^- \*\*(A\d+)\*\* ", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def invariants() -> list[tuple[str, str]]:
    """Return number and text of each invariant, in the order of the page."""
    _, *parts = _ITEM.split(sections("docs/architecture.md")["Invariants"])
    return list(zip(parts[::2], parts[1::2], strict=True))


@cache
def names_in(path: str) -> set[str]:
    """Return what a test module defines: tests, classes, and state machines by their names."""
    tree = ast.parse((ROOT / path).read_text())
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    for node in tree.body:  # a state machine's test case is assigned
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def test_numbers_run_from_one_without_a_gap_or_a_repeat():
    numbers = [number for number, _ in invariants()]
    assert numbers == [f"A{n}" for n in range(1, len(numbers) + 1)]
    assert numbers


def test_every_invariant_names_tests_that_exist():
    for number, text in invariants():
        named = _TEST.findall(text)
        assert named, f"{number} names no test"
        assert text.count("::") == len(named), f"{number} names something else"
        for path, name in named:
            assert (ROOT / path).is_file(), f"{number}: {path} does not exist"
            assert name in names_in(path), f"{number}: {path} has no {name}"
