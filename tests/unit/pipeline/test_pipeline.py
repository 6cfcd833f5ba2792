"""The data path put together: when a request is answered."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gevent
import pytest

from estat.accounting import metrics
from estat.disk.journal import Journals
from estat.disk.server_directory import ServerDirectory
from estat.errors import Refused, StoreDenied
from estat.pipeline.pipeline import Pipeline
from tests.support.parts import load

EVENT = b'{"n":1}'


@pytest.fixture(params=[{"DURABILITY": "journal"}, {"DURABILITY": "fsync"}])
def pipeline(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    settings = load(tmp_path, **request.param)
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


@pytest.mark.interpreted
def test_no_event_is_accepted_before_its_append_is_done(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    append = Journals.append

    def slow_append(self: Journals, *args: object) -> None:
        gevent.sleep(0)  # whoever need not wait for it goes on now
        append(self, *args)  # type: ignore[arg-type]
        order.append("appended")

    monkeypatch.setattr(Journals, "append", slow_append)
    pipeline.accept(b',"body":', [EVENT])
    order.append("accepted")
    assert order == ["appended", "accepted"]


@pytest.mark.parametrize(
    "pipeline", [{"DURABILITY": "memory", "CHANNEL_SIZE": "10"}], indirect=True
)
def test_what_only_gathers_in_the_queue_refuses_no_request(pipeline: Pipeline) -> None:
    for _ in range(3):
        pipeline.accept(b',"body":', [EVENT] * 4)
        pipeline.accept(b',"body":', [EVENT] * 7)


@pytest.mark.parametrize(
    "pipeline", [{"DURABILITY": "stored", "STORED_STRICT": "true"}], indirect=True
)
def test_strict_refuses_also_what_was_being_read_when_the_store_went_down(
    pipeline: Pipeline,
) -> None:
    pipeline.check_room()
    pipeline._breaker.failed(StoreDenied("403"), "key")
    with pytest.raises(Refused, match="down"):
        pipeline.accept(b',"body":', [EVENT])
    assert not journalled(pipeline)
