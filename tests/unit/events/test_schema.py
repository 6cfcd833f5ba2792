"""EVENT_SCHEMA: which schemas can be used, and what is told of an event that does not match."""

import json
import sys

import pytest

from estat.events.schema import Mismatch, Schema

SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "items": {"type": "array", "items": {"properties": {"a/b~c": {"type": "integer"}}}},
        "code": {"pattern": "^(a+)+$"},
        "count": {"maximum": 5},
    },
    "additionalProperties": False,
}


def schema(tmp_path, content=SCHEMA):
    file = tmp_path / "schema.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return Schema(str(file))


def mismatch(tmp_path, value):
    with pytest.raises(Mismatch) as caught:
        schema(tmp_path).check(value)
    return str(caught.value)


def problem(tmp_path, content):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller looks at the text
        schema(tmp_path, content)
    return str(caught.value)


def test_an_event_that_matches_passes(tmp_path):
    value = {"name": "x", "items": [{"a/b~c": 1}], "count": 5}
    schema(tmp_path).check(value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, '"name" is a required property'),
        ({"name": 7}, '/name: the value is not of type "string"'),
        (
            {"name": "x", "items": [{}, {"a/b~c": "x"}]},
            '/items/1/a~1b~0c: the value is not of type "integer"',
        ),
        ({"name": "x", "count": 10**400}, "/count: the value is greater than the maximum of 5"),
        ({"deep": json.loads("[" * 300 + "]" * 300)}, "no match (Recursion limit reached)"),
    ],
)
def test_a_mismatch_names_the_place_and_what_is_wrong_there(tmp_path, value, told):
    assert mismatch(tmp_path, value) == told


def test_values_are_not_repeated_and_names_are_cut(tmp_path):
    assert "secret" not in mismatch(tmp_path, {"name": "secret" * 1000})
    assert len(mismatch(tmp_path, {"name": "x", "y" * 5000: 1})) < 310
    deep = {"name": "x", "items": [{"a/b~c": "x"}]}
    assert len(mismatch(tmp_path, deep)) < 310


def test_a_reason_can_not_write_to_a_terminal(tmp_path):
    assert mismatch(tmp_path, {"name": "x", "\x1b[2J\n": 1}).isprintable()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([], "not of types"),
        ({"type": "objekt"}, "/type: "),
        ({"pattern": "("}, "/pattern: "),
        ({"properties": {"a": {"pattern": "a(?=b)"}}}, "/properties/a/pattern: "),
        ({"$ref": "#/$defs/none"}, "/$defs/none"),
        ({"$ref": "https://example.invalid/x.json"}, "example.invalid"),
        ({"$ref": "file:///etc/passwd"}, "file:///etc/passwd"),
        ({"$ref": "other.json"}, "other.json"),
        ({"$schema": "https://example.invalid/meta"}, "example.invalid"),
    ],
)
def test_a_file_that_can_not_be_used_is_told_with_the_reason(tmp_path, content, told):
    assert told in problem(tmp_path, content)


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="No such file"):
        Schema("/nowhere/schema.json")


def test_a_directory_is_no_schema(tmp_path):
    with pytest.raises(ValueError, match="Is a directory"):
        Schema(str(tmp_path))


@pytest.mark.parametrize(
    "draft",
    ["draft-04/schema#", "draft-07/schema#", "draft/2019-09/schema", "draft/2020-12/schema"],
)
def test_established_drafts_are_known(tmp_path, draft):
    checked = schema(
        tmp_path,
        {
            "$schema": f"http{'s' * ('draft/' in draft)}://json-schema.org/{draft}",
            "required": ["a"],
        },
    )
    with pytest.raises(Mismatch):
        checked.check({})


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(ValueError, match=r"estat-ingest\[schema\]"):
        schema(tmp_path)
