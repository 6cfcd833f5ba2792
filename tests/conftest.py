"""Fixtures of the tests that run the real server. Others need none of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import Bucket, Moto, moto_server_path
from tests.support.server import Server

Serve = Callable[..., Server]


def need(available: object, what: str) -> None:
    """Skip the test where a tool is missing; in CI that is a failure."""
    if not available:
        if os.environ.get("CI"):
            pytest.fail(f"{what} is missing")
        pytest.skip(f"{what} is missing")


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """One moto_server for all tests; each has a bucket of its own."""
    need(moto_server_path(), "moto_server")
    with Moto(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def bucket(moto: Moto) -> Bucket:
    return moto.new_bucket()


@pytest.fixture
def s3(moto: Moto) -> Iterator[FaultyS3]:
    """A faulty S3 in front of moto, healthy at first."""
    with FaultyS3(moto.port) as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path, moto: Moto, bucket: Bucket) -> Iterator[Serve]:
    """Start servers that share a directory and a bucket; all are gone at the end of the test."""
    with ExitStack() as running:

        def start(
            *, via: FaultyS3 | None = None, workers: int = 1, gunicorn: str = "", **settings: str
        ) -> Server:
            defaults = {
                "RAW_BUCKET": bucket.name,
                "AWS_ENDPOINT_URL_S3": via.url if via else moto.url,
            }
            server = Server(tmp_path, defaults | settings, workers=workers, gunicorn=gunicorn)
            return running.enter_context(server)

        yield start
