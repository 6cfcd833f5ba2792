"""What tests have for S3: a real moto_server process, and buckets read back with boto3."""

import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import boto3
from botocore.config import Config

from tests.support.eventually import eventually
from tests.support.lines import gunzip_lines
from tests.support.server import BIN, hold_port


def moto_server_path() -> str | None:
    """Return where moto_server is installed, if it is."""
    return shutil.which("moto_server", path=str(BIN)) or shutil.which("moto_server")


@contextmanager
def running(
    argv: list[str], log: IO[bytes], environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the end of the block, or of this process, however that comes."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *argv],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environ,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=20)


def listens(port: int) -> bool:
    """Tell that something listens; an OSError says that nothing does."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


@dataclass(frozen=True)
class StoredObject:
    """An object as it was read back."""

    key: str
    body: bytes
    content_type: str
    content_encoding: str | None
    metadata: dict[str, str]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return gunzip_lines(self.body)


class Endpoint:
    """What all S3s of the tests have in common: a port, keys, and buckets."""

    access_key = "test"
    secret_key = "test"

    def __init__(self) -> None:
        self.port = hold_port(self)
        self._client: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to use this S3."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def new_bucket(self) -> "Bucket":
        name = f"test-{uuid.uuid4().hex}"
        self._client.create_bucket(Bucket=name)
        return Bucket(name, self._client)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Have a client, with which the tests look at what is stored."""
        self._client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"total_max_attempts": 2, "mode": "standard"}),
        )
        with closing(self._client):
            yield


class Moto(Endpoint):
    """One process for the whole test run; it takes any key, signature and checksum."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._log = directory / "moto.log"
        self._processes = ExitStack()

    def __enter__(self) -> Self:
        path = moto_server_path()
        assert path, "moto_server is not installed"
        with ExitStack() as processes, self._log.open("wb") as log:
            processes.enter_context(running([path, "-H", "127.0.0.1", "-p", str(self.port)], log))
            eventually(
                lambda: listens(self.port),
                30,
                "moto_server listens",
                last_words=self._log.read_text,
            )
            processes.enter_context(self._connected())
            self._processes = processes.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()


class Bucket:
    """One bucket, fresh for one test."""

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self._client = client

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def object(self, key: str) -> StoredObject:
        answer = self._client.get_object(Bucket=self.name, Key=key)
        with answer["Body"] as body:
            data = body.read()
        return StoredObject(
            key, data, answer["ContentType"], answer.get("ContentEncoding"), answer["Metadata"]
        )

    def bodies(self, keys: Iterable[str]) -> list[bytes]:
        """Return the content of those objects that are there."""
        found = []
        for key in keys:
            with suppress(self._client.exceptions.NoSuchKey):
                found.append(self.object(key).body)
        return found

    def objects(self, prefix: str = "raw/") -> list[StoredObject]:
        return [self.object(key) for key in self.keys(prefix)]

    def stored(self, prefix: str = "raw/") -> list[dict[str, Any]]:
        """Return every stored line."""
        return [line for found in self.objects(prefix) for line in found.lines]

    def head(self, key: str) -> dict[str, Any]:
        """Return what a HEAD tells."""
        answer: dict[str, Any] = self._client.head_object(Bucket=self.name, Key=key)
        return answer

    def tags(self, key: str) -> dict[str, str]:
        answer = self._client.get_object_tagging(Bucket=self.name, Key=key)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def put(self, key: str, body: bytes, **metadata: str) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=body, Metadata=metadata)
