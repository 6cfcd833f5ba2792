"""The data path put together: when a request is answered."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from estat.accounting import metrics
from estat.disk.server_directory import ServerDirectory
from estat.pipeline.pipeline import Pipeline
from tests.support.parts import load

EVENT = b'{"n":1}'


@pytest.fixture(params=["journal", "fsync"])
def pipeline(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    settings = load(tmp_path, DURABILITY=request.param)
    directory = ServerDirectory.make(settings.dlq_dir)
    made = Pipeline(replace(settings, dlq_dir=directory.path), metrics.page(), 1, directory)
    made.start()
    yield made
    made.drain(time.monotonic() + 10, time.monotonic() + 20, last=False)


def journalled(pipeline: Pipeline) -> bytes:
    root = Path(pipeline.settings.dlq_dir)
    return b"".join(path.read_bytes() for path in root.glob("journal/*/*.journal"))


def test_an_event_is_in_its_journal_when_it_is_accepted(pipeline: Pipeline) -> None:
    pipeline.accept(b',"body":', [EVENT])
    assert EVENT in journalled(pipeline)
