"""Fixtures of the tests that compare the server's own worker with the stock one, or browse."""

from collections.abc import Iterator

import pytest

from tests.conftest import need
from tests.support import pair as pairs
from tests.support.pair import Pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pairs.running(lambda: tmp_path_factory.mktemp("same")) as running:
        yield running


@pytest.fixture
def same_counts(pair: Pair) -> Iterator[None]:
    """What a test does is counted on both sides alike."""
    with pair.counting_alike():
        yield


@pytest.fixture(scope="session", params=["chromium", "firefox", "webkit"])
def browser(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    """One process of each browser for all tests; each test opens tabs of its own."""
    from tests.support import browser as browsers  # Selenium is for the full tier alone

    name: str = request.param
    need(browsers.available(name), f"{name} or what drives it")
    with browsers.start(name, tmp_path_factory.mktemp(name)) as running:
        yield running
