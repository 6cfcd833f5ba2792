"""Every example of docs/reading.md, on what a real server stored of a real access log.

Athena's query is run in DuckDB's SQL. Spark's example needs Java, and is not run.
"""

import ast
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import duckdb
import pytest
import sqlglot

from tests.support import hits
from tests.support.athena import Table, statement
from tests.support.command import run
from tests.support.lines import gunzip_lines
from tests.support.page import blocks
from tests.support.server import BIN, ROOT, Server

BLOCKS = blocks("docs/reading.md")
TITLE = "Reading the events"

#: Batches of the real size: some readers fail only with objects of over a megabyte of lines.
BATCH_SIZE = "5000"

#: What stops a reader that hangs.
DEADLINE_SECONDS = 60

ATHENA_EVENTS = """
create view events as
select * from read_json('{pattern}', format = 'newline_delimited',
    columns = {{id: 'VARCHAR', ts: 'DOUBLE', ip: 'VARCHAR', user_agent: 'VARCHAR',
        body: 'VARCHAR'}},
    hive_partitioning = true, hive_types = {{dt: VARCHAR, hr: INTEGER}})
"""


def send(server, log):
    done = run(
        [
            BIN / "estat",
            "send",
            log,
            "--combined-log",
            "--batch",
            "100",
            "--url",
            f"{server.url}/collect",
        ]
    )
    assert done.returncode == 0, done.stdout + done.stderr


def objects(place):
    return sorted((place / "data" / "raw").glob("*/*/*.jsonl.gz"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with ``data``, written by a server of two workers, and ``conf``."""
    directory = tmp_path_factory.mktemp("reading")
    settings = {"RAW_BUCKET": "file:./data", "BATCH_SIZE": BATCH_SIZE, "FLUSH_INTERVAL": "1h"}
    settings["REJECTED_PREFIX"] = "rejected"
    with Server(directory, settings, workers=2) as server:
        send(server, hits.access_log(directory))
        for body in ('{"n":', '[{"n":1', "[4]"):
            assert server.post(body).status == 400
        assert server.stop() == 0
    (directory / "conf").symlink_to(ROOT / "conf")
    return directory


@pytest.fixture(scope="module")
def lines(place):
    """All stored lines, read with nothing but the standard library."""
    found = [line for path in objects(place) for line in gunzip_lines(path.read_bytes())]
    assert len(found) == 10_000
    return found


@pytest.fixture(scope="module")
def s3_bucket(tmp_path_factory, moto):
    """A bucket of a server whose days and hours are those of Seoul."""
    directory = tmp_path_factory.mktemp("seoul")
    log = directory / "some.log"
    with gzip.open(hits.access_log(directory), "rt", encoding="latin-1") as whole:
        log.write_text("".join(islice(whole, 300)), encoding="latin-1")
    bucket = moto.new_bucket()
    settings = moto.environ | {"RAW_BUCKET": bucket.name, "PARTITION_TZ": "Asia/Seoul"}
    with Server(directory, settings) as server:
        send(server, log)
        assert server.stop() == 0
    return bucket


@pytest.fixture
def at(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def athena(at):
    with duckdb.connect() as database:
        database.execute(ATHENA_EVENTS.format(pattern="data/raw/*/*/*.jsonl.gz"))
        yield database


def code(section, language, number=0):
    found = [b.code for b in BLOCKS if (b.section, b.language) == (section, language)]
    return found[number]


def python(source, place, **environ):
    done = run([sys.executable, "-W", "error", "-c", source], cwd=place, env=os.environ | environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(source, place):
    done = subprocess.run(
        ["bash", "-euc", source],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    return done.stdout


def in_duckdb(sql):
    (translated,) = sqlglot.transpile(sql, read="athena", write="duckdb")
    return translated


def hours_of(lines):
    return Counter(f"{datetime.fromtimestamp(x['ts'], UTC):%Y-%m-%d %H}" for x in lines)


def best_paths(lines):
    found = Counter(x["body"].get("path") for x in lines if x["body"]["status"] == 200)
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:10]


def as_hours(rows):
    return {f"{day} {int(hour):02}": events for day, hour, events in rows}


def test_these_are_all_the_examples_of_the_page():
    assert Counter((block.section, block.language) for block in BLOCKS) == {
        (TITLE, "sh"): 1,
        ("Athena", "sh"): 1,
        ("Athena", "sql"): 1,
        ("DuckDB", "sql"): 4,
        ("What was refused", "sql"): 1,
        ("pyarrow", "python"): 2,
        ("polars", "python"): 1,
        ("pandas", "python"): 1,
        ("Spark", "pyspark"): 1,
    }


def test_zcat_shows_lines(place, lines):
    shown = shell(code(TITLE, "sh"), place).splitlines()
    assert len(shown) == 3
    assert all(json.loads(line) in lines for line in shown)


# --- Athena


def test_the_command_puts_bucket_prefix_and_first_day_into_the_table(place):
    table = Table(shell(code("Athena", "sh"), place))
    assert table.location == "s3://my-own-bucket/events/"
    now = datetime(2026, 11, 2, tzinfo=UTC)
    assert next(table.locations(now)) == "s3://my-own-bucket/events/dt=2026-11-01/hr=00/"


def test_athenas_query_into_the_body_finds_the_paths(athena, lines):
    rows = athena.execute(in_duckdb(code("Athena", "sql"))).fetchall()
    assert rows == best_paths(lines)


def test_the_view_has_each_id_once_where_objects_lie_in_two_buckets(place, tmp_path, lines):
    first = objects(place)[0]
    copied = tmp_path / "fallback" / first.relative_to(place / "data")
    copied.parent.mkdir(parents=True)
    shutil.copy(first, copied)
    (tmp_path / "main").symlink_to(place / "data")
    twice = len(gunzip_lines(first.read_bytes()))
    with duckdb.connect() as database:
        database.execute(ATHENA_EVENTS.format(pattern=f"{tmp_path}/*/raw/*/*/*.jsonl.gz"))
        database.execute(in_duckdb(statement("events_once.sql")))
        assert database.sql("select count(*) from events").fetchall() == [(len(lines) + twice,)]
        found = database.sql("select count(*), count(distinct id) from events_once").fetchall()
        assert found == [(len(lines), len(lines))]
        columns = database.sql("select * from events_once").columns
    table = Table(statement("events.sql"))
    assert columns == [*table.columns, *table.partitions]


# --- DuckDB


@pytest.fixture
def database(at):
    with duckdb.connect() as opened:
        opened.execute(code("DuckDB", "sql", 0))
        yield opened


def test_duckdb_counts_all_events_and_each_id_once(database, lines):
    rows = database.execute(code("DuckDB", "sql", 1)).fetchall()
    assert as_hours(row[:3] for row in rows) == hours_of(lines)
    assert [row[2] for row in rows] == [row[3] for row in rows]


def test_duckdb_finds_the_paths_in_the_body(database, lines):
    assert database.execute(code("DuckDB", "sql", 2)).fetchall() == best_paths(lines)


def test_duckdb_makes_parquet_of_all_events(database, lines, tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(Path.cwd() / "data")
    monkeypatch.chdir(tmp_path)
    database.execute(code("DuckDB", "sql", 3))
    written = database.sql("select count(distinct id) from 'parquet/*/*/*.parquet'").fetchall()
    assert written == [(len(lines),)]


def test_duckdb_shows_what_was_refused(at):
    with duckdb.connect() as opened:
        rows = opened.execute(code("What was refused", "sql", 0)).fetchall()
    assert [(reason, lines, text) for reason, lines, _, text in rows] == [
        ("invalid_json", 2, '[{"n":1'),
        ("no_valid_event", 1, "[4]"),
    ]


# --- pyarrow


def test_pyarrow_reads_the_objects_as_a_dataset(place, lines):
    shown = python(code("pyarrow", "python", 0), place)
    assert shown.startswith(f"{len(lines)} struct<time: string,")


def test_pyarrow_reads_from_s3(place, s3_bucket, moto):
    source = code("pyarrow", "python", 1).replace("my-bucket", s3_bucket.name)
    shown = python(source, place, AWS_REGION="us-east-1", **moto.environ)
    assert int(shown) == len(s3_bucket.stored()) == 300


# --- polars, pandas, and events whose fields have other types


def test_polars_finds_the_paths_in_the_body(place, lines):
    assert ast.literal_eval(python(code("polars", "python"), place)) == best_paths(lines)


def test_pandas_finds_the_paths_in_the_body(place, lines):
    found = ast.literal_eval(python(code("pandas", "python"), place))
    assert sorted(found.values()) == sorted(count for _, count in best_paths(lines))


STRANGE = [
    *({"path": "/a", "status": status} for status in (200, "200", "none", None, [1], True, 404)),
    *({"path": "/b", "status": status} for status in (200, {"code": 200}, "2e400", 10**30)),
    {"status": 404},
    {"path": {"deep": [1]}, "status": "404"},
    {},
]


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """A directory with ``data``, in which one event's text is another's number."""
    directory = tmp_path_factory.mktemp("strange")
    with Server(directory, {"RAW_BUCKET": "file:./data"}) as server:
        assert server.post(json.dumps(STRANGE)).json["accepted"] == len(STRANGE)
        assert server.stop() == 0
    return directory


@pytest.mark.parametrize("section", ["polars", "pandas"])
def test_a_recipe_in_python_holds_with_strange_events(section, strange):
    found = ast.literal_eval(python(code(section, "python"), strange))
    assert dict(found) == {"/a": 2, "/b": 1}


@pytest.mark.parametrize("section", ["Athena", "DuckDB"])
def test_a_query_holds_with_strange_events(section, strange, monkeypatch):
    monkeypatch.chdir(strange)
    with duckdb.connect() as database:
        if section == "Athena":
            database.execute(ATHENA_EVENTS.format(pattern="data/raw/*/*/*.jsonl.gz"))
            sql = in_duckdb(code(section, "sql"))
        else:
            database.execute(code(section, "sql", 0))
            sql = code(section, "sql", 2)
        assert database.execute(sql).fetchall() == [("/a", 2), ("/b", 1)]


def test_the_partition_of_an_event_is_the_time_at_which_it_came(place):
    for path in objects(place):
        dt, hr = (part.partition("=")[2] for part in path.parts[-3:-1])
        begin = datetime.fromisoformat(dt).replace(tzinfo=UTC) + timedelta(hours=int(hr))
        for line in gunzip_lines(path.read_bytes()):
            assert begin.timestamp() <= line["ts"] < begin.timestamp() + 3600
