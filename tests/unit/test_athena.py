"""The tables under conf/athena are those of the lines and keys that the code writes."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import sqlglot

from estat.config import loading
from estat.events import ids, stored_line
from estat.web.request_context import RequestContext
from tests.support.athena import Table, statement
from tests.support.page import blocks, sections

TABLES = {"json": "events.sql", "raw": "events_raw.sql"}

#: 14 hours before UTC to 11 hours behind, half hours, and summer time.
ZONES = ["UTC", "Asia/Seoul", "Pacific/Kiritimati", "Pacific/Niue", "Asia/Kolkata", "Europe/Berlin"]

START, DAYS = datetime(2026, 1, 2, tzinfo=UTC), 400


def fields(**settings):
    """Return the members of a stored line, in order."""
    origins = RequestContext(loading.load({"RAW_BUCKET": "events"} | settings, env_file=""))
    origin = origins.of({"REMOTE_ADDR": "203.0.113.7"}, "web")
    return list(json.loads(stored_line.stamped("0" * 28, 1, 1.5, [(origin, [b"{}"])])[0]))


@pytest.mark.parametrize("event_format", TABLES)
def test_the_columns_are_the_fields_of_the_record(event_format):
    table = Table(statement(TABLES[event_format]))
    assert list(table.columns) == fields(EVENT_FORMAT=event_format)
    assert not set(table.partitions) & set(table.columns)


@pytest.mark.parametrize("event_format", TABLES)
def test_a_captured_field_is_a_column_more_with_the_name_that_the_page_tells(event_format):
    names = fields(
        EVENT_FORMAT=event_format,
        CAPTURE_HEADERS="referer,x-request-id",
        WRITE_KEYS="web:abc",
        CAPTURE_WRITE_KEY_NAME="true",
    )
    further = [name for name in names if name not in Table(statement(TABLES[event_format])).columns]
    assert further == ["referer", "x_request_id", "write_key"]
    told = " ".join(sections("docs/reading.md")["Athena"].split())
    assert all(f"`{name} string`" in told for name in further)


def test_the_schema_for_spark_is_the_fields_of_the_record():
    (block,) = (block for block in blocks("docs/reading.md") if block.language == "pyspark")
    schema = next(line for line in block.code.splitlines() if line.startswith("schema = "))
    columns = sqlglot.parse_one(f"CREATE TABLE t ({schema.split(chr(34))[1]})", dialect="spark")
    declared = {
        column.name: column.args["kind"].sql("hive")
        for column in columns.find_all(sqlglot.exp.ColumnDef)
    }
    assert declared == Table(statement("events.sql")).columns


@pytest.mark.parametrize("name", TABLES.values())
@pytest.mark.parametrize("zone", ZONES)
def test_every_hour_of_a_year_is_in_a_projected_partition_as_soon_as_it_begins(name, zone):
    table = Table(statement(name))
    hours = set(table.hours())
    for number in range(DAYS):
        midnight = START + timedelta(number)
        days = set(table.days(midnight))
        for now in (midnight + timedelta(hours=hour) for hour in range(24)):
            path = ids.partition(now.timestamp(), ZoneInfo(zone))
            day, hour = path.removeprefix("dt=").split("/hr=")
            assert day in days, now
            assert hour in hours, now


def test_the_projection_of_a_year_is_the_prefixes_of_its_keys_and_no_others():
    table = Table(statement("events.sql"))
    times = [START + timedelta(hours=number) for number in range(24 * DAYS)]
    keys = {
        ids.object_key(
            "raw",
            ids.partition(at.timestamp(), ZoneInfo("UTC")),
            at.timestamp(),
            "web-1",
            "0" * 28,
            1,
        )
        for at in times
    }
    days = {f"{at:%Y-%m-%d}" for at in times}
    assert set(table.locations(times[-1], only=days)) == {
        f"s3://my-bucket/{key.rpartition('/')[0]}/" for key in keys
    }


@pytest.mark.parametrize("name", TABLES.values())
def test_the_table_has_the_events_and_not_the_records_of_streams(name):
    location = Table(statement(name)).location
    assert location == "s3://my-bucket/raw/"
    assert not f"s3://my-bucket/{ids.record_key('raw', '0' * 28)}".startswith(location)
