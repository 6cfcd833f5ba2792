"""The statements under conf/athena, parsed, and their partition projection, expanded.

The rules are those of AWS's "Supported types for partition projection".
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import sqlglot
from sqlglot import exp

from tests.support.server import ROOT

_RELATIVE = re.compile(r"NOW(?:\+(\d+)DAYS)?")


def statement(name: str) -> str:
    return (ROOT / "conf" / "athena" / name).read_text()


class Table:
    """A CREATE EXTERNAL TABLE: columns and partition columns with their types, properties."""

    def __init__(self, sql: str) -> None:
        tree = sqlglot.parse_one(sql, dialect="athena")
        assert isinstance(tree, exp.Create), tree
        assert tree.kind == "TABLE", tree
        partitioned = tree.find(exp.PartitionedByProperty)
        assert partitioned
        self.columns = _types(tree.this)
        self.partitions = _types(partitioned.this)
        self.serde = _text(tree.find(exp.RowFormatSerdeProperty))
        self.location = _text(tree.find(exp.LocationProperty))
        self.properties = {
            found.this.this: found.args["value"].this
            for found in tree.find_all(exp.Property)
            if type(found) is exp.Property
        }

    def days(self, now: datetime) -> Iterator[str]:
        """Yield the values of dt that a query at ``now`` sees."""
        found = self.properties
        assert found["projection.enabled"] == "true"
        assert found["projection.dt.type"] == "date"
        assert found["projection.dt.format"] == "yyyy-MM-dd"
        assert (found["projection.dt.interval"], found["projection.dt.interval.unit"]) == (
            "1",
            "DAYS",
        )
        first, last = (_day(end, now) for end in found["projection.dt.range"].split(","))
        for number in range((last - first).days + 1):
            yield (first + timedelta(number)).strftime("%Y-%m-%d")

    def hours(self) -> Iterator[str]:
        """Yield the values of hr, as they stand in a location."""
        found = self.properties
        assert found["projection.hr.type"] == "integer"
        first, last = map(int, found["projection.hr.range"].split(","))
        for number in range(first, last + 1):
            yield str(number).zfill(int(found["projection.hr.digits"]))

    def locations(self, now: datetime, only: set[str] | None = None) -> Iterator[str]:
        """Yield what a query at ``now`` reads, of some days or of all."""
        template = self.properties["storage.location.template"]
        for day in self.days(now):
            if only is None or day in only:
                for hour in self.hours():
                    yield template.replace("${dt}", day).replace("${hr}", hour)


def _types(schema: exp.Expression) -> dict[str, str]:
    return {found.name: found.args["kind"].sql("hive") for found in schema.find_all(exp.ColumnDef)}


def _text(found: exp.Expression | None) -> str:
    assert found
    text: str = found.this.this
    return text


def _day(text: str, now: datetime) -> date:
    relative = _RELATIVE.fullmatch(text)
    if relative:
        return now.astimezone(UTC).date() + timedelta(int(relative[1] or 0))
    return date.fromisoformat(text)
