"""Fixtures that several unit tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.counterpart import Counterpart
from tests.support.silly_rename import SillyRename
from tests.unit.sending import Send


@pytest.fixture
def server() -> Iterator[Counterpart]:
    """A server for ``estat send`` to talk to."""
    with Counterpart() as running, running.serving():
        yield running


@pytest.fixture
def estat_send(server: Counterpart, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Send:
    return Send(server.url, tmp_path, capsys)


@pytest.fixture
def silly_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an open file that is removed stay in its directory until it is closed, as NFS does."""
    SillyRename(monkeypatch)
