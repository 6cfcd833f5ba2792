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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """One Chromium for the tests of a file; each opens a tab of its own."""
    from tests.support import browser as browsers  # Selenium is for the full tier alone

    need(browsers.available(), "Chromium and its driver")
    with browsers.chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running
