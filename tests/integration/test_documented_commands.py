"""Every command that the README and some pages tell a reader to type works as it stands there.

``tests.support.page`` finds the commands, ``tests.support.reader`` types them. What is below is
what a reader has before the first one, and what must be true after the last.
"""

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support.dlq_dir import dlq_files, dlq_paths
from tests.support.hits import combined_log_lines
from tests.support.page import Commands, blocks, commands, read
from tests.support.reader import Reader, copy_repository
from tests.support.s3 import Bucket, Endpoint, Moto
from tests.support.server import BIN, free_port

PAGES = ("README.md", "docs/ops.md", "docs/troubleshooting.md", "docs/dlq.md", "docs/bucket.md")
SECTIONS = [section for page in PAGES for section in commands(page)]

#: What runs this suite, takes long, changes nothing here or needs an engine for containers:
#: make is asked only what it would do. test_image.py runs what is for the engine itself.
_ONLY_DRY = re.compile(r"make (?=(test|check|bench|build|push|docs)\b)")
_FOR_AN_ENGINE = "docker "

POST = "curl -sf -d '{\"n\":1}' -H 'Content-Type: application/json' http://127.0.0.1:8080/collect"


@pytest.fixture
def reader(tmp_path: Path, moto: Moto, bucket: Bucket, section: Commands) -> Iterator[Reader]:
    """Somebody with a copy of the repository and a bucket; an operator has settings as well."""
    need(shutil.which("curl"), "curl")
    if any(command.startswith("promtool") for block in section.blocks for command in block):
        need(shutil.which("promtool"), "promtool")
    copy_repository(tmp_path / "estat")
    port = free_port()
    environ = {k: v for k, v in os.environ.items() if k in ("HOME", "LANG") or k.startswith("PIP_")}
    environ |= moto.environ | {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    environ |= {"PORT": str(port), "HTTP_ADDR": f"127.0.0.1:{port}"}
    if section.page == "README.md":
        environ["PATH"] = os.environ["PATH"]
    else:
        environ["PATH"] = f"{BIN}:{os.environ['PATH']}"
        environ |= {"RAW_BUCKET": bucket.name, "DLQ_DIR": f"{tmp_path}/var/dlq"}
    instead = {
        "my-bucket": bucket.name,
        "8080": str(port),
        "/var/lib/estat": f"{tmp_path}/var",
        "/mnt/rescue": f"{tmp_path}/rescue",
    }
    with Reader(tmp_path / "estat", port, environ, instead) as reading:
        yield reading


def has_nothing_but_an_env_file(reader: Reader, bucket: Bucket) -> None:
    # what says where S3 is must come from the file
    url = reader.environ["AWS_ENDPOINT_URL_S3"]
    for name in [*Endpoint().environ, "AWS_REGION", "RAW_BUCKET"]:
        del reader.environ[name]
    (example,) = (b.code for b in blocks("docs/bucket.md") if b.language == "text")
    example = example.replace("http://minio.example.com:9000", url)
    (reader.directory / ".env").write_text(example.replace("my-bucket", bucket.name))


def has_files_to_send(reader: Reader, _: Bucket) -> None:
    (reader.directory / "events.jsonl").write_text('{"n":1}\n{"n":2}\n')
    with gzip.open(reader.directory / "access.log.gz", "wt") as log:
        log.writelines(line + "\n" for line in combined_log_lines(500))
    reader.type(["estat serve"])


def has_a_server(reader: Reader, _: Bucket) -> None:
    reader.type(["estat serve", POST])


def has_stored_events(reader: Reader, bucket: Bucket) -> None:
    has_a_server(reader, bucket)
    reader.press_ctrl_c()


@contextmanager
def without_s3(reader: Reader) -> Iterator[None]:
    endpoint = reader.environ["AWS_ENDPOINT_URL_S3"]
    reader.environ["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{free_port()}"  # nobody there
    yield
    reader.press_ctrl_c()
    reader.environ["AWS_ENDPOINT_URL_S3"] = endpoint


def has_events_in_the_dlq(reader: Reader, _: Bucket) -> None:
    with without_s3(reader):
        reader.type(["estat serve", POST])


def has_rescued_a_dlq(reader: Reader, bucket: Bucket) -> None:
    has_events_in_the_dlq(reader, bucket)
    shutil.move(reader.environ["DLQ_DIR"], reader.directory.parent / "rescue" / "dlq")


def has_a_file_in_quarantine(reader: Reader, bucket: Bucket) -> None:
    # its botocore is of another version than the server's
    subprocess.run([sys.executable, "-m", "venv", reader.directory / "aws"], check=True)
    subprocess.run([reader.directory / "aws/bin/pip", "-q", "install", "awscli>=1.36"], check=True)
    reader.environ["PATH"] += f":{reader.directory}/aws/bin"
    with without_s3(reader):
        has_files_to_send(reader, bucket)
        url = "http://127.0.0.1:8080/collect"
        reader.type([f"estat send access.log.gz --url {url} --combined-log"])
    (file,) = (file for file in dlq_files(Path(reader.environ["DLQ_DIR"])) if file.lines)
    (reader.directory / "as-it-was.jsonl").write_bytes(gzip.decompress(file.path.read_bytes()))
    damaged = bytearray(file.path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 512] = bytes(512)  # a sector
    (name,) = re.findall(r"FILE=(\S+)", read("docs/dlq.md"))
    bucket.put(f"raw_dlq/{name}", bytes(damaged))


#: By the heading of a section; the others need nothing.
BEFORE: dict[str, Callable[[Reader, Bucket], None]] = {
    "Stores that speak S3": has_nothing_but_an_env_file,
    "estat send": has_files_to_send,
    "Health and readiness": has_a_server,
    "S3 down": has_a_server,
    "DLQ growing": has_events_in_the_dlq,
    "DLQ full": has_rescued_a_dlq,
    "Accounting mismatch": has_stored_events,
    "Save the events of a damaged file": has_a_file_in_quarantine,
}


def stored_hello(reader: Reader, _: Bucket) -> None:
    """Check that the event was accepted, and that zcat showed it."""
    answer, _, shown = reader.printed.values()
    assert answer == '{"accepted":1}'
    assert '"body":{"hello":"world"}' in shown


def stored_all_that_was_sent(_: Reader, bucket: Bucket) -> None:
    assert len(bucket.stored()) == 502


def stored_the_rescued(reader: Reader, bucket: Bucket) -> None:
    assert [event["body"] for event in bucket.stored()] == [{"n": 1}]
    assert dlq_paths(reader.directory.parent / "rescue" / "dlq") == []


def stored_what_came_before_the_damage(reader: Reader, bucket: Bucket) -> None:
    (stored,) = bucket.objects("raw/")
    saved = gzip.decompress(stored.body)
    _, _, events = (reader.directory / "as-it-was.jsonl").read_bytes().partition(b"\n")
    assert events.startswith(saved)
    assert 100 < len(stored.lines) < 400


def listed_the_reason(reader: Reader, _: Bucket) -> None:
    assert "EndpointConnectionError" in "".join(reader.printed.values())


def wrote_to_the_bucket(reader: Reader, bucket: Bucket) -> None:
    assert f"to {bucket.name}" in "".join(reader.printed.values())


def found_it_complete(reader: Reader, _: Bucket) -> None:
    assert "complete" in "".join(reader.printed.values())


AFTER: dict[str, Callable[[Reader, Bucket], None]] = {
    "Stores that speak S3": wrote_to_the_bucket,
    "From the source": stored_hello,
    "estat send": stored_all_that_was_sent,
    "DLQ growing": listed_the_reason,
    "DLQ full": stored_the_rescued,
    "Accounting mismatch": found_it_complete,
    "Save the events of a damaged file": stored_what_came_before_the_damage,
}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: f"{s.page}-{s.heading}")
def test_the_commands_work_in_the_order_of_the_page(
    reader: Reader, bucket: Bucket, section: Commands
) -> None:
    BEFORE.get(section.heading, lambda *_: None)(reader, bucket)
    reader.printed.clear()
    for block in section.blocks:
        here = [command for command in block if not command.startswith(_FOR_AN_ENGINE)]
        reader.type([_ONLY_DRY.sub("make --dry-run ", command) for command in here])
    reader.press_ctrl_c()
    AFTER.get(section.heading, lambda *_: None)(reader, bucket)


def test_every_preparation_is_for_a_section_that_is_there() -> None:
    headings = [section.heading for section in SECTIONS]
    assert set(BEFORE) | set(AFTER) <= set(headings)
    assert len(set(headings)) == len(headings)
