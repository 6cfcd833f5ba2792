"""Fixtures of the tests that compare the server's own worker with the stock one."""

from collections.abc import Iterator

import pytest

from tests.support import pair as pairs
from tests.support.pair import Pair
from tests.support.server import STOCK


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if STOCK:
        pytest.skip("both workers are under test")
    with pairs.running(lambda: tmp_path_factory.mktemp("same")) as running:
        yield running


@pytest.fixture
def same_counts(pair: Pair) -> Iterator[None]:
    """What a test does is counted on both sides alike."""
    with pair.counting_alike():
        yield
