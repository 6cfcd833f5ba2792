"""Fixtures of the tests that use the package's stores in the test's own process."""

from collections.abc import Iterator

import pytest

from estat.stores.s3_credentials import Credentials


@pytest.fixture(autouse=True)
def no_fetch_outlives_its_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what fetches credentials: it would go on for ever, with the next test's environment."""
    started: list[Credentials] = []
    start = Credentials.start

    def start_and_keep(self: Credentials) -> None:
        started.append(self)
        start(self)

    monkeypatch.setattr(Credentials, "start", start_and_keep)
    yield
    for credentials in started:
        credentials.close()
