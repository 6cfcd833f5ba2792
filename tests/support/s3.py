"""A real moto_server process, and its buckets read back with boto3."""

import shutil
import socket
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config

from tests.support.eventually import eventually
from tests.support.lines import gunzip_lines
from tests.support.server import BIN, free_port


def moto_server_path() -> str | None:
    """Return where moto_server is installed, if it is."""
    return shutil.which("moto_server", path=str(BIN)) or shutil.which("moto_server")


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


class Moto:
    """One process for the whole test run."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._log = directory / "moto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        path = moto_server_path()
        assert path, "moto_server is not installed"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [path, "-H", "127.0.0.1", "-p", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self._listens, 30, "moto_server listens", last_words=self._log.read_text)
        self._client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 2, "mode": "standard"}),
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)

    def _listens(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True

    def new_bucket(self) -> "Bucket":
        name = f"test-{uuid.uuid4().hex}"
        self._client.create_bucket(Bucket=name)
        return Bucket(name, self._client)


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

    def objects(self, prefix: str = "raw/") -> list[StoredObject]:
        return [self.object(key) for key in self.keys(prefix)]

    def stored(self, prefix: str = "raw/") -> list[dict[str, Any]]:
        """Return every stored line."""
        return [line for found in self.objects(prefix) for line in found.lines]

    def put(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=body)
