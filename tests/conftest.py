"""Fixtures of the tests that run the real server. Others need none of them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest

from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket, Endpoint, Moto, moto_server_path
from tests.support.server import CONFIG, STOCK, Server
from tests.support.swift import Swift, memcached_path, swift_path, with_extended_attributes

Serve = Callable[..., Server]

# a job in the background ignores SIGINT, and so does every program that it starts
signal.signal(signal.SIGINT, signal.default_int_handler)

# how long an example takes says something about the machine only
hypothesis.settings.register_profile("estat", deadline=None)
hypothesis.settings.load_profile("estat")


def need(available: object, what: str) -> None:
    """Skip the test where a tool is missing; in CI that is a failure."""
    if not available:
        if os.environ.get("CI"):
            pytest.fail(f"{what} is missing")
        pytest.skip(f"{what} is missing")


#: Marks tests of what the server's own worker does and gunicorn's does not.
own_worker = pytest.mark.skipif(STOCK, reason="the stock worker is under test")


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """One moto_server for all tests; each has a bucket of its own."""
    need(moto_server_path(), "moto_server")
    with Moto(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """One OpenStack Swift for all tests; each has a bucket of its own."""
    need(swift_path(), "swift")
    need(memcached_path(), "memcached")
    candidates = (tmp_path_factory.getbasetemp(), Path("/var/tmp"))
    place = with_extended_attributes(candidates)
    need(place, f"a directory with extended attributes (of {', '.join(map(str, candidates))})")
    with (
        TemporaryDirectory(prefix="swift-", dir=place, ignore_cleanup_errors=True) as directory,
        Swift(Path(directory)) as running,
    ):
        yield running


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """The S3 of this test: moto, unless the test is for every S3."""
    found: Endpoint = request.getfixturevalue(getattr(request, "param", "moto"))
    return found


#: Marks tests that run against moto, and once more against Swift.
every_s3 = pytest.mark.parametrize("endpoint", ["moto", "swift"], indirect=True)


@pytest.fixture
def bucket(endpoint: Endpoint) -> Bucket:
    return endpoint.new_bucket()


@pytest.fixture
def s3(endpoint: Endpoint) -> Iterator[FaultyS3]:
    """A faulty S3 in front of the real one, healthy at first."""
    with FaultyS3(endpoint.port) as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path, endpoint: Endpoint, bucket: Bucket) -> Iterator[Serve]:
    """Start servers that share a directory and a bucket; all are gone at the end of the test."""
    with ExitStack() as running:

        def start(
            *, via: FaultyS3 | None = None, workers: int = 1, gunicorn: str = "",
            config: Path = CONFIG, **settings: str,
        ) -> Server:  # fmt: skip
            defaults = endpoint.environ | {"RAW_BUCKET": bucket.name}
            if via:
                defaults["AWS_ENDPOINT_URL_S3"] = via.url
            server = Server(
                tmp_path, defaults | settings, workers=workers, gunicorn=gunicorn, config=config
            )
            return running.enter_context(server)

        yield start
