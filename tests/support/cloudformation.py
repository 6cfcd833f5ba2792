"""A CloudFormation template: read, resolved for its parameters, and deployed to moto.

moto's CloudFormation leaves out some types of resources, and properties of others.
What it leaves out is asked of ``Template.resources``, which follows the template's
own conditions and functions, as far as they are used here.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = "123456789012"  # moto's
REGION = "us-east-1"
_NO_VALUE = object()


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms."""


def _function(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if tag == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _function)


@cache
def _parsed(text: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(text, _Loader)  # derived from the safe one
    return document


class Template:
    """A template with parameters, its defaults filled in."""

    def __init__(self, path: Path, parameters: Mapping[str, str]) -> None:
        self.text = path.read_text()
        self.document = _parsed(self.text)
        self.given = dict(parameters)
        defaults = {
            name: str(declared["Default"])
            for name, declared in self.document["Parameters"].items()
            if "Default" in declared
        }
        self.parameters = defaults | self.given

    def resources(self, physical_ids: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return the properties of each resource whose condition is met."""
        resolve = _Resolver(self, physical_ids)
        return {
            name: resolve.value(resource.get("Properties", {}))
            for name, resource in self.document["Resources"].items()
            if "Condition" not in resource or resolve.condition(resource["Condition"])
        }

    def type_of(self, resource: str) -> str:
        kind: str = self.document["Resources"][resource]["Type"]
        return kind


class _Resolver:
    def __init__(self, template: Template, physical_ids: Mapping[str, str]) -> None:
        self._template = template
        self._ids = physical_ids

    def condition(self, name: str) -> bool:
        return bool(self.value(self._template.document["Conditions"][name]))

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [kept for kept in map(self.value, node) if kept is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            name, argument = next(iter(node.items()))
            function = getattr(self, "_" + name.removeprefix("Fn::").lower(), None)
            if function and (name.startswith("Fn::") or name in ("Ref", "Condition")):
                return function(argument)
        found = {key: self.value(child) for key, child in node.items()}
        return {key: child for key, child in found.items() if child is not _NO_VALUE}

    def _ref(self, name: str) -> Any:
        pseudo = {
            "AWS::NoValue": _NO_VALUE,
            "AWS::Region": REGION,
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": "stack",
        }
        if name in pseudo:
            return pseudo[name]
        if name in self._template.parameters:
            return self._template.parameters[name]
        return self._ids.get(name, name)

    def _getatt(self, path: list[str]) -> str:
        name, attribute = path
        physical = str(self._ref(name))
        kind = self._template.type_of(name)
        if (kind, attribute) == ("AWS::S3::Bucket", "Arn"):
            return f"arn:aws:s3:::{physical}"
        if (kind, attribute) == ("AWS::ECS::Service", "Name"):
            return physical.rpartition("/")[2]
        return physical if attribute.endswith("Id") else f"{physical}.{attribute}"

    def _sub(self, text: str) -> str:
        def replaced(match: re.Match[str]) -> str:
            name, _, attribute = match[1].partition(".")
            return str(self._getatt([name, attribute]) if attribute else self._ref(name))

        return re.sub(r"\$\{([\w:.]+)\}", replaced, text)

    def _if(self, argument: list[Any]) -> Any:
        return self.value(argument[1 if self.condition(argument[0]) else 2])

    def _equals(self, argument: list[Any]) -> bool:
        one, other = map(self.value, argument)
        return str(one) == str(other)

    def _not(self, argument: list[Any]) -> bool:
        return not self.value(argument[0])

    def _and(self, argument: list[Any]) -> bool:
        return all(map(self.value, argument))

    def _or(self, argument: list[Any]) -> bool:
        return any(map(self.value, argument))

    def _condition(self, name: Any) -> Any:
        # in a policy the same word is a member, and never alone
        return self.condition(name)

    def _select(self, argument: list[Any]) -> Any:
        return self.value(argument[1])[int(argument[0])]

    def _split(self, argument: list[Any]) -> list[str]:
        return str(self.value(argument[1])).split(argument[0])
